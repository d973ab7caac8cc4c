package bench;

import java.util.Optional;
import java.util.Set;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;

/** Forwards every record to the output partition with the number of its own. */
final class CopyProcessor implements Processor<byte[], byte[], byte[], byte[]> {
  /** The sink asks for the partition within the call of forward, on the same thread. */
  private static final ThreadLocal<Optional<Set<Integer>>> PARTITION = new ThreadLocal<>();

  private final Progress progress;
  private ProcessorContext<byte[], byte[]> context;
  private Optional<Set<Integer>> partition;

  CopyProcessor(Progress progress) {
    this.progress = progress;
  }

  static Optional<Set<Integer>> partitions(String topic, byte[] key, byte[] value, int count) {
    return PARTITION.get();
  }

  @Override
  public void init(ProcessorContext<byte[], byte[]> context) {
    this.context = context;
    this.partition = Optional.of(Set.of(context.taskId().partition()));
  }

  @Override
  public void process(Record<byte[], byte[]> record) {
    PARTITION.set(partition);
    context.forward(record);
    if (progress.endsTransaction()) {
      context.commit();
    }
  }
}
