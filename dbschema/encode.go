package dbschema

import (
	"bytes"
	"encoding/binary"
	"time"
	"unicode/utf8"
	"unsafe"

	"siptraced/compat/siptrace"
)

// Counts says, per field, what happened to values on their way into a row.
type Counts struct {
	Cut      [NumFields]uint64 // too long for the column
	Bytewise [NumFields]uint64 // no text that the column can hold: stored byte by byte, whole or in part
	NUL      [NumFields]uint64 // had NUL bytes that were replaced
}

// Encoder makes arguments of records. It is for one goroutine.
type Encoder struct {
	// Counts goes up with every row; whoever reads it may set it back.
	Counts Counts

	plan *Plan
	loc  *time.Location
	buf  []byte // text made here; arguments point into it

	second   int64 // of timeText
	timeText any
}

// Reset lets the memory of the arguments made so far be used again. Call it
// when their statement has been executed.
func (e *Encoder) Reset() { e.buf = e.buf[:0] }

// AppendArgs appends the arguments of one row: rec with user as its
// traced_user. They alias rec and memory of the encoder: neither rec's bytes
// nor Reset may be touched until the statement has been executed.
func (e *Encoder) AppendArgs(dst []any, rec *siptrace.Record, user []byte) []any {
	for i := range e.plan.slots {
		s := &e.plan.slots[i]
		var b []byte
		switch s.field {
		case FieldTime:
			dst = append(dst, e.time(rec.Time))
			continue
		case FieldTimeUS:
			dst = append(dst, int64(rec.Time.Nanosecond()/1000))
			continue
		case FieldCallID:
			b = rec.CallID
		case FieldTracedUser:
			b = user
		case FieldMsg:
			b = rec.Msg
		case FieldMethod:
			b = rec.Method
		case FieldStatus:
			b = rec.Status
		case FieldFromIP:
			b = e.endpoint(rec.From)
		case FieldToIP:
			b = e.endpoint(rec.To)
		case FieldFromTag:
			b = rec.FromTag
		case FieldToTag:
			b = rec.ToTag
		case FieldDirection:
			b = unsafe.Slice(unsafe.StringData(rec.Direction), len(rec.Direction)) // read only
		case FieldFromProto, FieldFromHost, FieldFromPort:
			b = part(e.endpoint(rec.From), s.field-FieldFromProto)
		case FieldToProto, FieldToHost, FieldToPort:
			b = part(e.endpoint(rec.To), s.field-FieldToProto)
		}
		b = e.value(s, b)
		if s.blob {
			if b == nil {
				b = []byte{}
			}
			dst = append(dst, b)
			continue
		}
		// A string is text to every driver, and costs one word less than a slice.
		dst = append(dst, unsafe.String(unsafe.SliceData(b), len(b)))
	}
	return dst
}

// time is the whole second in the form that the column has.
func (e *Encoder) time(t time.Time) any {
	if sec := t.Unix(); e.timeText == nil || sec != e.second {
		e.second = sec
		if e.plan.wall {
			w := t.In(e.loc)
			e.timeText = time.Date(w.Year(), w.Month(), w.Day(), w.Hour(), w.Minute(), w.Second(), 0, time.UTC)
		} else if e.plan.julian {
			// The Julian day of 1970-01-01 00:00 is 2440587.5; Kamailio takes off half
			// a second and adds it again when it reads.
			e.timeText = (float64(sec)-0.5)/86400 + 2440587.5
		} else {
			e.timeText = t.In(e.loc).Format(time.DateTime)
		}
	}
	return e.timeText
}

func (e *Encoder) endpoint(p siptrace.Endpoint) []byte {
	start := len(e.buf)
	e.buf = p.Append(e.buf)
	return e.buf[start:]
}

// part takes proto:address:port apart: 0, 1 and 2. An address loses its
// brackets, and what is no port is 0, since the column is a number.
func part(b []byte, n Field) []byte {
	first, last := bytes.IndexByte(b, ':'), bytes.LastIndexByte(b, ':')
	if first == last {
		return [][]byte{nil, b, []byte("0")}[n]
	}
	switch n {
	case 0:
		return b[:first]
	case 1:
		return bytes.Trim(b[first+1:last], "[]")
	}
	port := b[last+1:]
	if len(port) == 0 || len(bytes.Trim(port, "0123456789")) > 0 {
		return []byte("0")
	}
	return port
}

// value is b as the column can hold it.
func (e *Encoder) value(s *slot, b []byte) []byte {
	nul := s.nul && bytes.IndexByte(b, 0) >= 0
	if nul || s.enc != encBytes && !ascii(b) {
		b = e.encode(s, b, nul)
	}
	if n := s.fit(b); n < len(b) {
		e.Counts.Cut[s.field]++
		b = b[:n]
	}
	return b
}

// encode is the way of a value that is not plain ASCII.
func (e *Encoder) encode(s *slot, b []byte, nul bool) []byte {
	var text, bytewise bool
	switch s.enc {
	case encUnicode:
		text = utf8.Valid(b)
		bytewise = !text
	case encBMP:
		text = utf8.Valid(b)
		bytewise = !text || bytes.ContainsFunc(b, func(r rune) bool { return r > 0xFFFF })
	case encCharset:
		text = s.charset.holds(b)
		bytewise = !text
	}
	if !bytewise && !nul {
		return b
	}
	if bytewise {
		e.Counts.Bytewise[s.field]++
	}
	if nul {
		e.Counts.NUL[s.field]++
	}
	start := len(e.buf)
	for len(b) > 0 {
		n := 1
		if text {
			_, n = utf8.DecodeRune(b)
		}
		switch {
		case b[0] == 0 && nul && s.enc == encCharset:
			e.buf = append(e.buf, '?')
		case b[0] == 0 && nul:
			e.buf = append(e.buf, "\u2400"...)
		case n == 1 && b[0] >= utf8.RuneSelf, n == 4 && s.enc == encBMP:
			for _, c := range b[:n] {
				e.buf = utf8.AppendRune(e.buf, s.char(c))
			}
		default:
			e.buf = append(e.buf, b[:n]...)
		}
		b = b[n:]
	}
	return e.buf[start:]
}

// char is the character that stands for a byte from 0x80 on.
func (s *slot) char(c byte) rune {
	if s.enc == encCharset {
		return s.charset.upper[c&0x7F]
	}
	return rune(c)
}

// fit is how many bytes of b fit into the column.
func (s *slot) fit(b []byte) int {
	n := len(b)
	if s.chars > 0 && n > s.chars { // a character has at least one byte
		n = s.chars
		if s.enc != encBytes {
			n = 0
			for range s.chars {
				_, size := utf8.DecodeRune(b[n:])
				n += size // 0 at the end
			}
		}
	}
	if s.bytes > 0 && n > s.bytes {
		n = s.bytes
		for n > 0 && !utf8.RuneStart(b[n]) {
			n--
		}
	}
	return n
}

func ascii(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
