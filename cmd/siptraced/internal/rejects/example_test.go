package rejects_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/rejects"
)

func Example() {
	dir, err := os.MkdirTemp("", "rejects")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "rejects.jsonl")
	f, err := rejects.Open(path, 1<<20, counters.New(), slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := f.Add(rejects.Line{Reason: "no such table", Table: "sip_trace", Packet: []byte("HEP3")}); err != nil { // on disk now
		fmt.Println(err)
		return
	}
	f.Note(rejects.Line{Reason: "no Call-ID", Packet: []byte("OPTIONS")}) // written soon
	if err := f.Close(); err != nil {
		fmt.Println(err)
		return
	}
	text, err := os.ReadFile(path)
	fmt.Print(string(text), err, "\n")
	// Output:
	// {"time":"0001-01-01T00:00:00Z","reason":"no such table","table":"sip_trace","packet":"SEVQMw=="}
	// {"time":"0001-01-01T00:00:00Z","reason":"no Call-ID","packet":"T1BUSU9OUw=="}
	// <nil>
}
