package bench;

import java.util.HashMap;
import java.util.Map;

/** The options that every peer takes; benches/README.md says what they mean. */
record Options(
    String brokers,
    String group,
    String input,
    String output,
    long records,
    int commitIntervalMs,
    long transactionRecords,
    int lingerMs,
    String compression,
    String stateDir) {

  static Options parse(String[] args) {
    Map<String, String> values = new HashMap<>();
    for (int at = 0; at + 1 < args.length; at += 2) {
      values.put(args[at], args[at + 1]);
    }
    return new Options(
        values.get("--brokers"),
        values.get("--group"),
        values.get("--input"),
        values.get("--output"),
        Long.parseLong(values.get("--records")),
        Integer.parseInt(values.get("--commit-interval-ms")),
        Long.parseLong(values.get("--transaction-records")),
        Integer.parseInt(values.get("--linger-ms")),
        values.get("--compression"),
        values.get("--state-dir"));
  }
}
