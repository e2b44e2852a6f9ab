// Package rejects writes the reject file: one JSON object per line for each
// message that was received and could not be used, with the reason. See the example.
package rejects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/counters"
	"siptraced/cmd/siptraced/internal/statefile"
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

// File is the reject file.
type File struct {
	path string
	max  atomic.Int64
	lost *atomic.Uint64
	log  *slog.Logger

	mu   sync.Mutex // covers what follows, also while the file is synced
	file *os.File
	tail map[string]struct{} // ids of the last lines that were there before

	gate   sync.Mutex // covers closed; never held while the disk works
	closed bool
	noted  chan Line
	done   chan struct{}
}

// ErrFull is wrapped by the answer to a line for which the file has no room.
var ErrFull = errors.New("it has reached its bound (key store.reject_max_bytes)")

// Open opens the file, or makes it. It grows to max bytes (0: no bound); half of
// that is for lines that are noted: anybody can send what is not usable. Lines that
// can't be noted are counted as rejects.not_noted.
func Open(path string, max int64, c *counters.Set, log *slog.Logger) (*File, error) {
	f := &File{path: path, lost: c.Counter("rejects.not_noted"), log: log, tail: map[string]struct{}{}, noted: make(chan Line, queue), done: make(chan struct{})}
	f.max.Store(max)
	if err := f.Reopen(); err != nil {
		return nil, err
	}
	go f.write()
	return f, nil
}

// SetMax changes the bound.
func (f *File) SetMax(bytes int64) { f.max.Store(bytes) }

// Reopen goes on in the file that has the name now: the one before may have been
// moved away. After an error it goes on in the one before.
func (f *File) Reopen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := f.open()
	if err != nil {
		return fmt.Errorf("reject file (key store.reject_file): %w; name a file that siptraced may make and write", err)
	}
	if f.file != nil {
		err = f.file.Close()
	}
	f.file = file
	return err
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

// sayInterval is how often the log says that lines were noted.
const sayInterval = time.Minute

// write writes what is noted, within the bound per second, and says so now and then.
func (f *File) write() {
	defer close(f.done)
	var t tally
	var second time.Time
	written := 0
	tick := time.NewTicker(sayInterval)
	defer tick.Stop()
	for {
		select {
		case line, ok := <-f.noted:
			if !ok {
				f.say(&t)
				return
			}
			if now := line.Time.Truncate(time.Second); now != second {
				second, written = now, 0
			}
			if written++; written > perSecond {
				t.why = errFlood
				f.lost.Add(1)
			} else if err := f.add(false, line); err != nil {
				t.why = err
				f.lost.Add(1)
			} else {
				t.noted++
			}
			if !t.said {
				f.say(&t)
			}
		case <-tick.C:
			t.said = false
			f.say(&t)
		}
	}
}

var errFlood = fmt.Errorf("more than %d came in a second", perSecond)

// tally is what the log does not say yet.
type tally struct {
	noted uint64
	lost  uint64 // of rejects.not_noted, said already
	why   error  // why the last one was lost
	said  bool   // in this interval
}

// say logs what happened since it was called last.
func (f *File) say(t *tally) {
	lost := f.lost.Load()
	switch {
	case lost > t.lost:
		if t.why == nil {
			t.why = errFlood // they waited for the disk longer than the queue is
		}
		f.log.Warn("rejects: messages that can't be used came in, and not all of them are noted in the reject file", "noted", t.noted, "not_noted", lost-t.lost, "file", f.path, "err", t.why)
	case t.noted > 0:
		f.log.Warn("rejects: messages that can't be used came in, they are noted in the reject file", "noted", t.noted, "file", f.path)
	default:
		return
	}
	*t = tally{lost: lost, said: true}
}

// add writes lines; those of rows, which have to be kept, are synced.
func (f *File) add(rows bool, lines ...Line) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return fmt.Errorf("reject file %s: %w", f.path, fs.ErrClosed)
	}
	var text []byte
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
		err = f.room(size, int64(len(text)), rows)
	}
	if err == nil {
		err = f.append(size, text, rows)
	}
	if err != nil {
		return fmt.Errorf("reject file %s: %w", f.path, err)
	}
	return nil
}

func (f *File) append(size int64, text []byte, sync bool) error {
	_, err := f.file.Write(text)
	if err == nil && sync {
		err = f.file.Sync()
	}
	if err != nil {
		// Nobody is to read half a line, and whoever wants these written tries again.
		err = errors.Join(err, f.file.Truncate(size))
	}
	return err
}

// room reports with ErrFull that so many bytes more don't fit. Rows always fit into an
// empty file: they are of one transaction, and would wait forever.
func (f *File) room(size, more int64, rows bool) error {
	bound := f.max.Load()
	if !rows {
		bound /= 2
	}
	if bound > 0 && size+more > bound && !(rows && size == 0) {
		return fmt.Errorf("%w; put its rows back with siptraced replay, or move it away, and send SIGHUP", ErrFull)
	}
	return nil
}

// lookBack is how much of the end of an existing file is read, in bytes.
const lookBack = 2 << 20

// open opens the file, or makes it. A last line that a crash left torn is cut off:
// who wrote it was never told that it is there.
func (f *File) open() (*os.File, error) {
	file, err := statefile.Open(f.path)
	if err != nil {
		return nil, err
	}
	if err := f.readTail(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
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
