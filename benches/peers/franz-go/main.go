// Copies a topic with franz-go's GroupTransactSession, and ends after so many records.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What every peer takes; benches/README.md says what it means.
type options struct {
	brokers, group, input, output, compression, stateDir string
	records, transactionRecords                          int64
	commitIntervalMs, lingerMs                           int
	early                                                bool
}

func parse() options {
	var o options
	flag.StringVar(&o.brokers, "brokers", "", "host:port")
	flag.StringVar(&o.group, "group", "", "consumer group")
	flag.StringVar(&o.input, "input", "", "topic to read")
	flag.StringVar(&o.output, "output", "", "topic to write")
	flag.StringVar(&o.compression, "compression", "none", "none or lz4")
	flag.StringVar(&o.stateDir, "state-dir", "", "not used")
	flag.Int64Var(&o.records, "records", 0, "end after this many")
	flag.Int64Var(&o.transactionRecords, "transaction-records", 0, "bound of a transaction; 0: none")
	flag.IntVar(&o.commitIntervalMs, "commit-interval-ms", 100, "bound of a transaction")
	flag.IntVar(&o.lingerMs, "linger-ms", 20, "linger of the producer")
	flag.BoolVar(&o.early, "early", false, "end a transaction as soon as nothing waits")
	flag.Parse()
	return o
}

func main() {
	o := parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func session(o options) (*kgo.GroupTransactSession, error) {
	codec := kgo.NoCompression()
	if o.compression == "lz4" {
		codec = kgo.Lz4Compression()
	}
	return kgo.NewGroupTransactSession(
		kgo.SeedBrokers(o.brokers),
		kgo.ConsumerGroup(o.group),
		kgo.ConsumeTopics(o.input),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.TransactionalID(o.group),
		kgo.TransactionTimeout(10*time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerLinger(time.Duration(o.lingerMs)*time.Millisecond),
		// The default of 10,000 makes Produce wait for the broker.
		kgo.MaxBufferedRecords(500_000),
	)
}

func run(ctx context.Context, o options) error {
	s, err := session(o)
	if err != nil {
		return err
	}
	defer s.Close()
	var committed int64
	for committed < o.records {
		count, err := transaction(ctx, s, o, o.records-committed)
		if err != nil {
			return err
		}
		committed += count
	}
	return nil
}

// Runs one transaction and returns how many records it committed.
func transaction(
	ctx context.Context, s *kgo.GroupTransactSession, o options, left int64,
) (int64, error) {
	first, err := poll(ctx, s, bound(o, left))
	if err != nil || first.Empty() {
		return 0, err
	}
	if err := s.Begin(); err != nil {
		return 0, err
	}
	var refused kgo.FirstErrPromise
	count := produce(ctx, s, o, first, &refused)
	until, cancel := context.WithTimeout(ctx, time.Duration(o.commitIntervalMs)*time.Millisecond)
	defer cancel()
	for !o.early && until.Err() == nil {
		more := bound(o, left) - count
		if more <= 0 {
			break
		}
		fetches, err := poll(until, s, more)
		if err != nil && until.Err() == nil {
			return 0, err
		}
		count += produce(ctx, s, o, fetches, &refused)
	}
	if err := s.Client().Flush(ctx); err != nil {
		return 0, err
	}
	committed, err := s.End(ctx, refused.Err() == nil)
	if err != nil || !committed {
		return 0, err
	}
	return count, nil
}

// How many records the transaction may hold.
func bound(o options, left int64) int64 {
	if o.transactionRecords > 0 {
		return min(o.transactionRecords, left)
	}
	return left
}

func poll(ctx context.Context, s *kgo.GroupTransactSession, most int64) (kgo.Fetches, error) {
	// All that has been fetched, unless the bound asks for less.
	fetches := s.PollRecords(ctx, int(min(most, 1<<30)))
	for _, failed := range fetches.Errors() {
		return fetches, failed.Err
	}
	return fetches, nil
}

func produce(
	ctx context.Context, s *kgo.GroupTransactSession, o options, fetches kgo.Fetches,
	refused *kgo.FirstErrPromise,
) int64 {
	count := fetches.NumRecords()
	// One allocation for all.
	copies := make([]kgo.Record, count)
	at := 0
	fetches.EachRecord(func(record *kgo.Record) {
		to := &copies[at]
		at++
		to.Topic = o.output
		to.Partition = record.Partition
		to.Key = record.Key
		to.Value = record.Value
		to.Timestamp = record.Timestamp
		s.Produce(ctx, to, refused.Promise())
	})
	return int64(count)
}
