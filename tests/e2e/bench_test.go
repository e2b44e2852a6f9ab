package e2e

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"siptraced/tests/load"
	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// BenchmarkRows measures the way from the socket to the committed row: an
// operation is one message, sent as fast as the daemon reads; the time ends
// when the last row is visible. A figure is that of sender, daemon and database
// together on one machine.
//
//	go test ./tests/e2e -run - -bench Rows -benchtime 100000x
func BenchmarkRows(b *testing.B) {
	for _, bb := range []struct {
		name string
		open func(b *testing.B) *database
	}{
		{"mariadb", func(b *testing.B) *database {
			return mariaDB(b, servers.StartMariaDB(b, servers.WithServerArgs("--innodb-buffer-pool-size=256M")), "trace", "utf8mb4")
		}},
		{"mariadb-fsync", func(b *testing.B) *database {
			return mariaDB(b, servers.StartMariaDB(b, servers.WithFsync(), servers.WithServerArgs("--innodb-buffer-pool-size=256M")), "trace", "utf8mb4")
		}},
		{"postgres", func(b *testing.B) *database { return postgres(b, servers.StartPostgres(b), "trace") }},
		{"sqlite", func(b *testing.B) *database { return sqliteFile(b, filepath.Join(b.TempDir(), "trace.db")) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			d := bb.open(b)
			d.createTable(b, nil)
			run := start(b, options{dbURL: d.url, set: []string{"spool.dir=" + b.TempDir(), "local=udp:" + load.Proxy.String()}})
			list := load.Calls(b.N, time.Now())
			size := 0
			for _, m := range list {
				size += len(m.Packet)
			}
			f, err := vectors.NewUDPFeeder(run.addr)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			b.SetBytes(int64(size / len(list)))
			b.ResetTimer()
			for _, m := range list {
				if err := f.Send(ctx, m.Packet); err != nil {
					b.Fatal(err)
				}
			}
			d.await(b, run, "sip_trace", b.N, 5*time.Minute)
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			run.stop(b)
		})
	}
}
