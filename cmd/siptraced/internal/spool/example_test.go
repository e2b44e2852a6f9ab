package spool_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"

	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/compat/siptrace"
)

// methods is a sink that counts messages per method.
type methods map[string]int

func (m methods) Name() string { return "methods" }

func (m methods) Open(context.Context, []spool.Shard) (spool.Writer, error) {
	return methodsWriter{m}, nil
}

type methodsWriter struct{ methods }

func (w methodsWriter) Write(_ context.Context, b *spool.Batch) error {
	var d spool.Decoder
	err := d.Each(b, func(rec *siptrace.Record, _ []byte) error {
		w.methods[string(rec.Method)]++
		return nil
	})
	b.Done()
	return err
}

func (w methodsWriter) Flush(context.Context) error { return nil }
func (w methodsWriter) Close() error                { return nil }

func Example() {
	ctx := context.Background()
	cfg := spool.DefaultConfig()
	cfg.Dir, _ = os.MkdirTemp("", "spool")
	defer os.RemoveAll(cfg.Dir)
	s, err := spool.Open(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return
	}
	counts := methods{}
	consumer := s.Run(counts, spool.Options{OneWriter: true})
	for _, m := range []string{"INVITE", "ACK", "BYE", "INVITE"} {
		if err := s.Put(&siptrace.Record{CallID: []byte("call"), Method: []byte(m), Msg: []byte("...")}); err != nil {
			fmt.Println(err)
		}
	}
	s.Flush(ctx)
	consumer.Stop(ctx)
	for _, m := range slices.Sorted(maps.Keys(counts)) {
		fmt.Println(m, counts[m])
	}
	fmt.Println(s.Close(ctx))
	// Output:
	// ACK 1
	// BYE 1
	// INVITE 2
	// <nil>
}
