package jsonrpc

import (
	"errors"
	"fmt"
	"strings"
)

// MaxFIFODocument is the length of the longest document in a FIFO, in bytes:
// Kamailio's buffer. Writes of more than 4096 bytes are not atomic anyway.
const MaxFIFODocument = 8190

// Framer finds the documents in a stream that many writers share, a FIFO. The
// zero value is ready.
//
// A document ends with the brace that closes the first one, outside of strings.
// What comes before the first brace belongs to it, and breaks it. All that as in
// Kamailio; but there an odd quote or a document that is too long makes a reader
// swallow every later command. Here a line that begins with {"jsonrpc" is a new
// document when the one before it is not finished, and Pause ends what is left.
// A batch can't come this way: each of its objects ends a document.
type Framer struct {
	// Dropped is the number of bytes that were given up so far.
	Dropped int

	buf     []byte
	pos     int // bytes of buf that were looked at
	depth   int // open braces
	quoted  bool
	escaped bool
	lost    bool // skipping the rest of a document that is too long
}

// Write takes what was read. It keeps a copy.
func (f *Framer) Write(p []byte) { f.buf = append(f.buf, p...) }

// Next returns the next document, or nil when more bytes are needed. It is valid
// until the next Write.
func (f *Framer) Next() []byte {
	for f.pos < len(f.buf) {
		c := f.buf[f.pos]
		if c <= ' ' && f.pos == 0 && !f.lost {
			f.buf = f.buf[1:]
			continue
		}
		if c == '\n' && (f.depth > 0 || f.quoted || f.lost) {
			switch begins(f.buf[f.pos+1:]) {
			case yes:
				f.drop(f.pos + 1)
				continue
			case perhaps:
				return nil
			}
		}
		f.pos++
		switch {
		case f.lost:
			f.Dropped++
			f.buf, f.pos = f.buf[1:], 0
		case f.pos > MaxFIFODocument:
			f.drop(f.pos)
			f.lost = true
		case f.scan(c):
			doc := f.buf[:f.pos:f.pos]
			f.buf, f.pos = f.buf[f.pos:], 0
			return doc
		}
	}
	return nil
}

// Begun reports whether a document is under way. What was written and has not
// even a brace is none, and would break the next one: no writer stops there, so
// [Framer.Pause] can be called at once.
func (f *Framer) Begun() bool { return f.depth > 0 || f.lost }

// scan follows strings and braces; true at the end of a document.
func (f *Framer) scan(c byte) bool {
	switch {
	case f.escaped:
		f.escaped = false
	case f.quoted:
		f.escaped = c == '\\'
		f.quoted = c != '"'
	case c == '"':
		f.quoted = true
	case c == '{':
		f.depth++
	case c == '}' && f.depth > 0:
		f.depth--
		return f.depth == 0
	}
	return false
}

// drop gives up n bytes and begins anew.
func (f *Framer) drop(n int) {
	*f = Framer{Dropped: f.Dropped + n, buf: f.buf[n:]}
}

// Pause tells that nothing came for a while, and drops a document that was begun:
// its writer has gone, and it would break the next one. A writer sends a document
// in one piece, so that a tenth of a second is long. It returns the number of
// bytes dropped.
func (f *Framer) Pause() int {
	n := len(f.buf)
	f.drop(n)
	return n
}

type answer int

const (
	no answer = iota
	yes
	perhaps
)

// begins reports whether b begins a request. White space is looked through for a
// line's length only: what is undecided is kept.
func begins(b []byte) answer {
	const far = 80
	for _, part := range []string{"{", `"jsonrpc"`} {
		blanks := 0
		for blanks < len(b) && b[blanks] <= ' ' {
			blanks++
		}
		if blanks > far {
			return no
		}
		b = b[blanks:]
		n := min(len(b), len(part))
		if string(b[:n]) != part[:n] {
			return no
		}
		if n < len(part) {
			return perhaps
		}
		b = b[n:]
	}
	return yes
}

// ErrNoReplyName tells that a request names no FIFO for its reply.
var ErrNoReplyName = errors.New("jsonrpc: no reply_name")

// ReplyNameError tells why a reply_name is refused.
type ReplyNameError struct {
	Name string
	Msg  string
}

func (e *ReplyNameError) Error() string {
	return fmt.Sprintf("jsonrpc: reply_name %.40q: %s", e.Name, e.Msg)
}

// CheckReplyName tells whether a reply may be written to the FIFO of that name in
// that folder: a bare name, by Kamailio's rules. The error is [ErrNoReplyName] or
// a [*ReplyNameError]. What the name stands for is the listener's to check.
func CheckReplyName(dir, name string) error {
	const maxPath = 127 // Kamailio's buffer for the path
	switch {
	case name == "":
		return ErrNoReplyName
	case strings.ContainsAny(name, "./\\\x00"):
		return &ReplyNameError{Name: name, Msg: "dots, slashes and backslashes are refused"}
	case len(dir)+len(name) > maxPath:
		return &ReplyNameError{Name: name, Msg: fmt.Sprintf("path of %d bytes, at most %d", len(dir)+len(name), maxPath)}
	}
	return nil
}
