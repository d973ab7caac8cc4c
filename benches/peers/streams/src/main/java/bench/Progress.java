package bench;

import java.util.concurrent.CountDownLatch;

/** Counts records for all tasks; used by the one stream thread only. */
final class Progress {
  private final long records;
  private final long transactionRecords;
  private final CountDownLatch done;
  private long count;

  Progress(Options options, CountDownLatch done) {
    this.records = options.records();
    this.transactionRecords = options.transactionRecords();
    this.done = done;
  }

  /** Counts one record; true if the transaction is to end with it. */
  boolean endsTransaction() {
    count++;
    if (count == records) {
      done.countDown();
    }
    return transactionRecords > 0 && count % transactionRecords == 0;
  }
}
