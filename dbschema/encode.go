package dbschema

import (
	"bytes"
	"encoding/binary"
	"iter"
	"math"
	"time"
	"unicode/utf8"
	"unsafe"

	"siptraced/compat/siptrace"
)

// Counts says, per field, what happened to values on their way into a row.
type Counts struct {
	Cut      [numFields]uint64 // too long for the column, or a number or time that it has not
	Bytewise [numFields]uint64 // no text that the column can hold: stored byte by byte, whole or in part
	NUL      [numFields]uint64 // had NUL bytes that were replaced
}

// All gives each count that is not 0 with its name: cut, bytewise or nul, a dot,
// and the name of the field.
func (c *Counts) All() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for f := range numFields {
			for _, n := range [...]struct {
				what  string
				count uint64
			}{{"cut.", c.Cut[f]}, {"bytewise.", c.Bytewise[f]}, {"nul.", c.NUL[f]}} {
				if n.count > 0 && !yield(n.what+f.String(), n.count) {
					return
				}
			}
		}
	}
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
		case fieldTime:
			dst = append(dst, e.time(s, rec.Time))
			continue
		case fieldTimeUS:
			dst = append(dst, int64(rec.Time.Nanosecond()/1000))
			continue
		case fieldCallID:
			b = rec.CallID
		case fieldTracedUser:
			b = user
		case fieldMsg:
			b = rec.Msg
		case fieldMethod:
			b = rec.Method
		case fieldStatus:
			b = rec.Status
		case fieldFromIP:
			b = e.endpoint(rec.From)
		case fieldToIP:
			b = e.endpoint(rec.To)
		case fieldFromTag:
			b = rec.FromTag
		case fieldToTag:
			b = rec.ToTag
		case fieldDirection:
			b = unsafe.Slice(unsafe.StringData(rec.Direction), len(rec.Direction)) // read only
		case fieldFromProto, fieldFromHost, fieldFromPort:
			b = e.part(s.field, e.endpoint(rec.From), s.field-fieldFromProto)
		case fieldToProto, fieldToHost, fieldToPort:
			b = e.part(s.field, e.endpoint(rec.To), s.field-fieldToProto)
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

// time is the whole second in the form that the column has, or the nearest one
// that it has.
func (e *Encoder) time(s *slot, t time.Time) any {
	if at := t.Unix(); s.latest != 0 && (at < s.earliest || at > s.latest) {
		e.Counts.Cut[s.field]++
		t = time.Unix(min(max(at, s.earliest), s.latest), 0)
	}
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
func (e *Encoder) part(f Field, b []byte, n Field) []byte {
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
	if len(port) == 0 {
		return []byte("0")
	}
	return e.number(f, port, math.MaxUint16)
}

// number is b where it is a number from 0 to most, else 0.
func (e *Encoder) number(f Field, b []byte, most int64) []byte {
	if digits := bytes.TrimLeft(b, "0"); len(b) > 0 && len(digits) < 19 { // 18 digits fit 63 bits
		var n int64
		for _, c := range digits {
			if c < '0' || c > '9' {
				n = math.MaxInt64
				break
			}
			n = 10*n + int64(c-'0')
		}
		if n <= most {
			return b
		}
	}
	if len(b) > 0 {
		e.Counts.Cut[f]++
	}
	return []byte("0")
}

// value is b as the column can hold it.
func (e *Encoder) value(s *slot, b []byte) []byte {
	if s.most > 0 {
		return e.number(s.field, b, s.most)
	}
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
