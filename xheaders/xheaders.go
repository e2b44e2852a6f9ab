package xheaders

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Directions, as X-Siptrace-Dir and the column direction spell them.
const (
	In  = "in"
	Out = "out"
)

// Limits of the values, taken from the columns of sip_trace version 4.
const (
	// MaxAddr is the width of the columns fromip and toip, in characters.
	MaxAddr = 64
	// MaxSec is the last second before 9999-12-31 00:00:00 UTC. The day that
	// is left over keeps local time in every zone within the year 9999, where
	// DATETIME ends.
	MaxSec = 253402214399
	// MaxUsec is what the signed 32 bit column time_us holds.
	MaxUsec = 1<<31 - 1
)

// Headers is one set of X-Siptrace headers.
type Headers struct {
	// FromIP and ToIP are the ends of the original message as the sender of
	// the set wrote them, "udp:192.0.2.10:5060": 1 to MaxAddr characters, no
	// white space.
	FromIP, ToIP []byte
	// Method is one word; empty if the sender did not know it.
	Method []byte
	// Dir is In or Out.
	Dir string
	// HasTime is false for the time "0 0": the sender did not know it.
	HasTime bool
	// Sec is in seconds since the Unix epoch, at most MaxSec; Usec in
	// microseconds, at most MaxUsec, and not below one second in every set.
	Sec  int64
	Usec uint32
}

// Time is the moment that Sec and Usec stand for.
func (h *Headers) Time() time.Time {
	return time.Unix(h.Sec, int64(h.Usec)*int64(time.Microsecond))
}

// ErrNone says that the header section has none of the five headers.
var ErrNone = errors.New("xheaders: message without X-Siptrace headers")

// Cause is why a set was refused: a stable name, fit for a counter.
type Cause string

// Causes of a MalformedError.
const (
	MissingFromIP Cause = "xheaders_missing_fromip" // others of the set are there
	MissingToIP   Cause = "xheaders_missing_toip"
	MissingTime   Cause = "xheaders_missing_time"
	MissingMethod Cause = "xheaders_missing_method"
	MissingDir    Cause = "xheaders_missing_dir"
	BadFromIP     Cause = "xheaders_bad_fromip"   // empty, more than one word, over MaxAddr
	BadToIP       Cause = "xheaders_bad_toip"     // likewise
	BadTime       Cause = "xheaders_bad_time"     // not two numbers within MaxSec and MaxUsec
	BadMethod     Cause = "xheaders_bad_method"   // more than one word
	BadDir        Cause = "xheaders_bad_dir"      // neither in nor out
	Unterminated  Cause = "xheaders_unterminated" // the message ends within a header line
)

// MalformedError says why a set can't be read or written.
type MalformedError struct {
	Cause Cause
	// Offset is a place in the message: where the bad value begins, where the
	// set ends that lacks one, where the header without line end begins. −1:
	// the set was to be written.
	Offset int
	// Len is the length in bytes of the bad value or of the header without
	// line end, 0 for a missing one.
	Len int
}

func (e *MalformedError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("xheaders: to be written: %s, length %d", e.Cause, e.Len)
	}
	return fmt.Sprintf("xheaders: %s at byte %d, length %d", e.Cause, e.Offset, e.Len)
}

// The five headers in the order in which they are written. none is any other
// header.
type field uint8

const (
	fromIP field = iota
	toIP
	timeUs
	method
	dir
	none
)

// header is one header of a message with its continuation lines: msg[start:end],
// line end included. The value starts at value, white space around it included.
type header struct {
	field             field
	start, value, end int
	whole             bool // ends with a line end
}

// Read finds the first set in the header section of msg and puts it into h.
// The slices of h alias msg. h is reset first, and left zero with every error:
// ErrNone, or a *MalformedError. Read does not allocate except for the latter.
func Read(msg []byte, h *Headers) error {
	*h = Headers{}
	var (
		set  Headers
		seen [none]bool
		end  int // of the last header of the set
	)
	pos, ok := sectionStart(msg)
	if !ok {
		return ErrNone
	}
	for {
		hd, ok := next(msg, pos)
		if !ok {
			break
		}
		pos = hd.end
		if hd.field == none {
			continue
		}
		if seen[hd.field] {
			break // a second set begins
		}
		if !hd.whole {
			return &MalformedError{Cause: Unterminated, Offset: hd.start, Len: hd.end - hd.start}
		}
		value := bytes.TrimLeft(msg[hd.value:hd.end], space)
		at := hd.end - len(value)
		value = trim(value)
		if cause := set.parse(hd.field, value); cause != "" {
			return &MalformedError{Cause: cause, Offset: at, Len: len(value)}
		}
		seen[hd.field], end = true, hd.end
	}
	if seen == [none]bool{} {
		return ErrNone
	}
	for f, ok := range seen {
		if !ok {
			return &MalformedError{Cause: missing(field(f)), Offset: end}
		}
	}
	*h = set
	return nil
}

// Cut appends msg to dst without any X-Siptrace header of its header section,
// whole set or not, and returns the longer slice. All other bytes are kept;
// Kamailio also drops the headers that stand between or after them. dst may be
// msg[:0]; what Read found in msg is then overwritten.
func Cut(dst, msg []byte) []byte {
	kept := 0 // up to here msg is copied or left out
	pos, ok := sectionStart(msg)
	for ok {
		var hd header
		if hd, ok = next(msg, pos); !ok {
			break
		}
		if hd.field != none {
			dst = append(dst, msg[kept:hd.start]...)
			kept = hd.end
		}
		pos = hd.end
	}
	return append(dst, msg[kept:]...)
}

// Append appends msg to dst with h between the last header and the blank line,
// as Kamailio writes it, and returns the longer slice; if msg has no blank line,
// h stands at its end. Content-Length and body stay as they are. dst must not
// overlap msg. The method must not be empty and the time must be known. Headers
// that msg has already stay in front of h, and Read would prefer them: Cut them
// first.
//
// The error is a *MalformedError: its cause is the value of h that Read would
// not give back, or Unterminated if msg has no line end after its last header.
// dst is then returned as it was.
func Append(dst, msg []byte, h *Headers) ([]byte, error) {
	if err := h.check(); err != nil {
		return dst, err
	}
	at, ok := sectionStart(msg)
	if !ok {
		return dst, &MalformedError{Cause: Unterminated, Offset: len(msg)}
	}
	for {
		hd, ok := next(msg, at)
		if !ok {
			break
		}
		if !hd.whole {
			return dst, &MalformedError{Cause: Unterminated, Offset: hd.start, Len: hd.end - hd.start}
		}
		at = hd.end
	}
	dst = append(dst, msg[:at]...)
	dst = append(dst, "X-Siptrace-Fromip: "...)
	dst = append(dst, h.FromIP...)
	dst = append(dst, "\r\nX-Siptrace-Toip: "...)
	dst = append(dst, h.ToIP...)
	dst = append(dst, "\r\nX-Siptrace-Time: "...)
	dst = strconv.AppendInt(dst, h.Sec, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, uint64(h.Usec), 10)
	dst = append(dst, "\r\nX-Siptrace-Method: "...)
	dst = append(dst, h.Method...)
	dst = append(dst, "\r\nX-Siptrace-Dir: "...)
	dst = append(dst, h.Dir...)
	dst = append(dst, "\r\n"...)
	return append(dst, msg[at:]...), nil
}

// parse puts the trimmed value of a header into h. It returns "" or the cause
// that makes the value unusable.
func (h *Headers) parse(f field, value []byte) Cause {
	switch f {
	case fromIP:
		if !isAddr(value) {
			return BadFromIP
		}
		h.FromIP = value
	case toIP:
		if !isAddr(value) {
			return BadToIP
		}
		h.ToIP = value
	case timeUs:
		sec, rest, ok := number(value, MaxSec)
		usec, tail, ok2 := number(trim(rest), MaxUsec)
		if !ok || !ok2 || len(tail) > 0 {
			return BadTime
		}
		h.Sec, h.Usec = sec, uint32(usec)
		h.HasTime = sec != 0 || usec != 0
	case method:
		if !isWord(value) {
			return BadMethod
		}
		h.Method = value
	case dir:
		switch {
		case fold(value, In):
			h.Dir = In
		case fold(value, Out):
			h.Dir = Out
		default:
			return BadDir
		}
	}
	return ""
}

// check reports what Read would refuse or take for unknown.
func (h *Headers) check() error {
	switch {
	case !isAddr(h.FromIP):
		return &MalformedError{Cause: BadFromIP, Offset: -1, Len: len(h.FromIP)}
	case !isAddr(h.ToIP):
		return &MalformedError{Cause: BadToIP, Offset: -1, Len: len(h.ToIP)}
	case !h.HasTime || h.Sec == 0 && h.Usec == 0, h.Sec < 0, h.Sec > MaxSec, h.Usec > MaxUsec:
		return &MalformedError{Cause: BadTime, Offset: -1}
	case len(h.Method) == 0 || !isWord(h.Method):
		return &MalformedError{Cause: BadMethod, Offset: -1, Len: len(h.Method)}
	case h.Dir != In && h.Dir != Out:
		return &MalformedError{Cause: BadDir, Offset: -1, Len: len(h.Dir)}
	}
	return nil
}

func missing(f field) Cause {
	switch f {
	case fromIP:
		return MissingFromIP
	case toIP:
		return MissingToIP
	case timeUs:
		return MissingTime
	case method:
		return MissingMethod
	}
	return MissingDir
}

// sectionStart returns where the line after the start line begins; false if msg
// has no start line, or one without line end.
//
// RFC 3261 §7.5: CRLF ahead of the start line is ignored. Blanks as well here,
// because Kamailio traces such messages too.
func sectionStart(msg []byte) (int, bool) {
	pos := len(msg) - len(bytes.TrimLeft(msg, " \t\r\n"))
	i := bytes.IndexByte(msg[pos:], '\n')
	return pos + i + 1, i >= 0
}

// next reads the header that begins at pos. It returns false at the blank line
// and at the end of msg.
func next(msg []byte, pos int) (header, bool) {
	hd := header{field: none, start: pos, end: len(msg)}
	line := msg[pos:]
	if len(line) == 0 || line[0] == '\n' || len(line) > 1 && line[0] == '\r' && line[1] == '\n' {
		return hd, false
	}
	// RFC 3261 §7.3.1: a line that begins with a blank continues the one above.
	for end := pos; ; {
		i := bytes.IndexByte(msg[end:], '\n')
		if i < 0 {
			break
		}
		end += i + 1
		if end == len(msg) || msg[end] != ' ' && msg[end] != '\t' {
			hd.end, hd.whole = end, true
			break
		}
	}
	// Most headers of a message end here.
	if line = msg[pos:hd.end]; line[0]|0x20 != 'x' {
		return hd, true
	}
	if colon := bytes.IndexByte(line, ':'); colon > 0 {
		hd.field = lookup(bytes.TrimRight(line[:colon], " \t"))
		hd.value = pos + colon + 1
	}
	return hd, true
}

// lookup tells which header a name stands for.
//
// RFC 3261 §7.3.1: names are compared without letter case.
func lookup(name []byte) field {
	switch {
	case fold(name, "X-Siptrace-Fromip"):
		return fromIP
	case fold(name, "X-Siptrace-Toip"):
		return toIP
	case fold(name, "X-Siptrace-Time"):
		return timeUs
	case fold(name, "X-Siptrace-Method"):
		return method
	case fold(name, "X-Siptrace-Dir"):
		return dir
	}
	return none
}

// fold compares without the case of ASCII letters; bytes.EqualFold would also
// take the Unicode long s for an s.
func fold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if lower(c) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// space is what separates words: C's isspace, by which Kamailio ends a value.
const space = " \t\n\v\f\r"

func trim(b []byte) []byte { return bytes.Trim(b, space) }

func isWord(b []byte) bool { return !bytes.ContainsAny(b, space) }

func isAddr(b []byte) bool {
	return len(b) > 0 && isWord(b) && utf8.RuneCount(b) <= MaxAddr
}

// number reads the decimal digits at the start of b. It returns false if there
// are none, if they go on with anything but white space, or beyond limit.
func number(b []byte, limit int64) (n int64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		n = n*10 + int64(b[i]-'0')
		if n > limit {
			return 0, nil, false
		}
		i++
	}
	rest = b[i:]
	return n, rest, i > 0 && (len(rest) == 0 || isSpace(rest[0]))
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
