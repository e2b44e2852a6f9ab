package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/cmd/siptraced/internal/store"
	"siptraced/compat/siptrace"
)

func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	log := slog.New(slog.DiscardHandler)

	spoolConfig := spool.DefaultConfig()
	spoolConfig.Dir = filepath.Join(dir, "spool")
	sp, err := spool.Open(ctx, spoolConfig, log)
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := store.DefaultConfig()
	cfg.RejectFile = filepath.Join(dir, "rejects.jsonl")
	if cfg.URL, err = siptrace.ParseDBURL("sqlite:///" + filepath.Join(dir, "trace.db")); err != nil {
		fmt.Println(err)
		return
	}
	s, err := store.Open(ctx, cfg, sp, counters.New(), log)
	if err != nil {
		fmt.Println(err)
		return
	}
	s.Start()
	err = sp.Put(&siptrace.Record{
		Time: time.Now(), CallID: []byte("a84b4c76e66710"), Msg: []byte("OPTIONS sip:b@example.org SIP/2.0\r\n\r\n"), Method: []byte("OPTIONS"),
		Route: siptrace.Route{Sinks: siptrace.ToStore},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	sp.Flush(ctx)
	// Stop writes what the spool holds, until the context ends.
	if err := s.Stop(ctx); err != nil {
		fmt.Println(err)
		return
	}
	if err := sp.Close(ctx); err != nil {
		fmt.Println(err)
		return
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "trace.db"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	var callID string
	if err := db.QueryRow("SELECT callid FROM sip_trace").Scan(&callID); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(callID)
	// Output: a84b4c76e66710
}
