// Package rejects writes the reject file: one JSON object per line for each
// message that was taken in and could not be used, with the reason.
//
//	f := rejects.Open("siptraced.rejects.jsonl", counters)
//	err := f.Add(rejects.Line{Reason: "...", Packet: packet}) // on disk when it returns
//	f.Note(rejects.Line{...})                                 // never waits: for the intake
//	err = f.Close()
package rejects

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
)

// Line is one line of the file. Packet is the record as it was spooled, a HEP3
// packet, or what came in, in base64.
type Line struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	Cause  string    `json:"cause,omitempty"`  // the counter's name
	Source string    `json:"source,omitempty"` // who sent it
	Table  string    `json:"table,omitempty"`
	CallID string    `json:"callid,omitempty"`
	Method string    `json:"method,omitempty"`
	User   string    `json:"traced_user,omitempty"`
	Packet []byte    `json:"packet"`
}

const (
	// queue is how many noted lines may wait, and perSecond how many are written
	// in a second: anybody can send what is not usable.
	queue     = 256
	perSecond = 100
)

// File is the reject file. It is made when there is something to write.
type File struct {
	path string
	lost *atomic.Uint64

	mu   sync.Mutex // covers file, also while it is synced
	file *os.File

	gate   sync.Mutex // covers closed; never held while the disk works
	closed bool
	noted  chan Line
	done   chan struct{}
}

// Open names the file. Lines that are noted faster than they may be written are
// counted as rejects.not_noted.
func Open(path string, c *counters.Set) *File {
	f := &File{path: path, lost: c.Counter("rejects.not_noted"), noted: make(chan Line, queue), done: make(chan struct{})}
	go f.write()
	return f
}

// Path is the file's name.
func (f *File) Path() string { return f.path }

// Add writes one line and brings it to disk.
func (f *File) Add(line Line) error { return f.add(line, true) }

// Note has one line written soon. It keeps nothing of the line's memory.
func (f *File) Note(line Line) {
	line.Packet = append([]byte(nil), line.Packet...)
	f.gate.Lock()
	defer f.gate.Unlock()
	if f.closed {
		f.lost.Add(1)
		return
	}
	select {
	case f.noted <- line:
	default:
		f.lost.Add(1)
	}
}

// write writes what is noted, within the bound per second.
func (f *File) write() {
	defer close(f.done)
	var second time.Time
	written := 0
	for line := range f.noted {
		if now := line.Time.Truncate(time.Second); now != second {
			second, written = now, 0
		}
		if written++; written > perSecond || f.add(line, false) != nil {
			f.lost.Add(1)
		}
	}
}

func (f *File) add(line Line, sync bool) error {
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("reject file: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		f.file, err = os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("reject file (key store.reject_file): %w", err)
		}
	}
	_, err = f.file.Write(append(text, '\n'))
	if err == nil && sync {
		err = f.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("reject file %s: %w", f.path, err)
	}
	return nil
}

// Close writes what is noted and closes the file.
func (f *File) Close() error {
	f.gate.Lock()
	if f.closed {
		f.gate.Unlock()
		return nil
	}
	f.closed = true
	close(f.noted)
	f.gate.Unlock()
	<-f.done
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
