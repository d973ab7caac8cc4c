package bench;

import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/** Copies a topic with Kafka Streams and exactly_once_v2, and ends after so many records. */
public final class Copy {
  private static final int BATCH_BYTES = 1_000_000;

  private Copy() {}

  /** Runs until all records are committed. */
  public static void main(String[] args) throws InterruptedException {
    Options options = Options.parse(args);
    CountDownLatch done = new CountDownLatch(1);
    Progress progress = new Progress(options, done);
    KafkaStreams streams = new KafkaStreams(topology(options, progress), settings(options));
    boolean[] failed = {false};
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          failed[0] = true;
          done.countDown();
          return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(30))));
    streams.start();
    done.await();
    // Commits what was processed.
    streams.close(Duration.ofSeconds(60));
    System.exit(failed[0] ? 1 : 0);
  }

  private static Topology topology(Options options, Progress progress) {
    Topology topology = new Topology();
    ByteArrayDeserializer from = new ByteArrayDeserializer();
    ByteArraySerializer to = new ByteArraySerializer();
    topology.addSource("input", from, from, options.input());
    topology.addProcessor("copy", () -> new CopyProcessor(progress), "input");
    topology.addSink("output", options.output(), to, to, CopyProcessor::partitions, "copy");
    return topology;
  }

  private static Properties settings(Options options) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, options.group());
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.brokers());
    settings.put(StreamsConfig.STATE_DIR_CONFIG, options.stateDir());
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.commitIntervalMs());
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    long bound = options.transactionRecords();
    int poll = bound > 0 ? (int) bound : 10_000;
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), poll);
    settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), options.lingerMs());
    settings.put(
        StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG),
        options.compression());
    settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), BATCH_BYTES);
    return settings;
  }
}
