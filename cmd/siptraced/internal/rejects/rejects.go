// Package rejects writes the reject file: one JSON object per line for each
// message that was received and could not be used, with the reason. See the example.
package rejects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
)

// Line is one line of the file. Packet is the record as it was spooled, a HEP3
// packet, or what came in, in base64.
type Line struct {
	// ID names the record in the spool: two lines with the same one are about the
	// same record.
	ID     string    `json:"id,omitempty"`
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

// key tells lines apart: a record may be refused for several of its users.
func (l *Line) key() string { return l.ID + " " + l.User }

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

	mu   sync.Mutex // covers what follows, also while the file is synced
	file *os.File
	tail map[string]struct{} // ids of the last lines that were there before

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

// Add writes lines and brings them to disk.
func (f *File) Add(lines ...Line) error { return f.add(true, lines...) }

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
		if written++; written > perSecond || f.add(false, line) != nil {
			f.lost.Add(1)
		}
	}
}

func (f *File) add(sync bool, lines ...Line) error {
	var text []byte
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		if err := f.open(); err != nil {
			return fmt.Errorf("reject file (key store.reject_file): %w", err)
		}
	}
	for _, line := range lines {
		if _, there := f.tail[line.key()]; there {
			continue // written before a crash that came between this file and the database
		}
		one, err := json.Marshal(line)
		if err != nil {
			return fmt.Errorf("reject file: %w", err)
		}
		text = append(append(text, one...), '\n')
	}
	size, err := f.file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.file.Write(text)
		if err == nil && sync {
			err = f.file.Sync()
		}
		if err != nil {
			// Nobody is to read half a line, and whoever wants these written tries again.
			err = errors.Join(err, f.file.Truncate(size))
		}
	}
	if err != nil {
		return fmt.Errorf("reject file %s: %w", f.path, err)
	}
	return nil
}

// lookBack is how much of the end of an existing file is read, in bytes.
const lookBack = 2 << 20

// open opens the file, or makes it. A last line that a crash left torn is cut off:
// who wrote it was never told that it is there.
func (f *File) open() error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	if err := f.readTail(file); err != nil {
		return errors.Join(err, file.Close())
	}
	f.file = file
	return nil
}

func (f *File) readTail(file *os.File) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	text := make([]byte, min(size, lookBack))
	if _, err := file.ReadAt(text, size-int64(len(text))); err != nil {
		return err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	switch last := text[whole:]; {
	case len(last) == 0:
	case json.Valid(last): // an editor left it without its end
		_, err = file.Write([]byte("\n"))
		whole = len(text)
	case whole > 0 || int64(len(text)) == size:
		err = file.Truncate(size - int64(len(last)))
	default: // longer than what was read
		_, err = file.Write([]byte("\n"))
	}
	if err != nil {
		return err
	}
	f.tail = map[string]struct{}{}
	for line := range bytes.Lines(text[:whole]) {
		var l Line
		if json.Unmarshal(line, &l) == nil && l.ID != "" {
			f.tail[l.key()] = struct{}{}
		}
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
