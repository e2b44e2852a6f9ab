package vectors

import (
	"strings"
	"unicode/utf8"
)

// Storage says how a table keeps text.
type Storage struct {
	Name string
	// latin1 is a table whose characters are MySQL's latin1 (code page 1252);
	// what does not fit there is kept byte by byte.
	latin1 bool
	// noNUL is a table that cannot keep a NUL byte.
	noNUL bool
	// wide is the width of every column but msg in a table that does not keep to
	// its widths, in bytes; 0 is a table that does.
	wide int
}

// The storages that the tests know.
var (
	UTF8     = Storage{Name: "utf8mb4"}                 // MariaDB
	Latin1   = Storage{Name: "latin1", latin1: true}    // MariaDB
	Postgres = Storage{Name: "PostgreSQL", noNUL: true} // with the encoding UTF8
	SQLite   = Storage{Name: "SQLite", wide: 4096}      // any length fits; the spool keeps so much
)

// NULStandIn is what a NUL byte becomes where the table cannot keep one.
const NULStandIn = "\u2400"

// text is a message or a header value as characters: UTF-8 as it is, all else
// with each byte as the Latin-1 character of that value.
func text(b string) string {
	if utf8.ValidString(b) {
		return b
	}
	var s strings.Builder
	for i := range len(b) {
		s.WriteRune(rune(b[i]))
	}
	return s.String()
}

// store returns the bytes that the table keeps of b.
func (st Storage) store(b string) string {
	if !st.latin1 {
		b = text(b)
		if st.noNUL {
			b = strings.ReplaceAll(b, "\x00", NULStandIn)
		}
		return b
	}
	if s, ok := toCP1252(b); ok && utf8.ValidString(b) {
		return s
	}
	return b
}

// storedText is the way back: what a recorded column says as characters. It is
// exact for whatever store makes of valid UTF-8.
func (st Storage) storedText(b string) string {
	if !st.latin1 {
		return b
	}
	var s strings.Builder
	for i := range len(b) {
		s.WriteRune(fromCP1252(b[i]))
	}
	return s.String()
}

// high is the part of code page 1252 that is not Latin-1. MySQL maps the five
// unassigned bytes to the control characters of the same value.
var high = [32]rune{
	0x20AC, 0x81, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0x8D, 0x017D, 0x8F,
	0x90, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D, 0x017E, 0x0178,
}

func fromCP1252(b byte) rune {
	if b >= 0x80 && b < 0xA0 {
		return high[b-0x80]
	}
	return rune(b)
}

func toCP1252(s string) (string, bool) {
	out := make([]byte, 0, len(s))
next:
	for _, r := range s {
		if r < 0x80 || r >= 0xA0 && r <= 0xFF {
			out = append(out, byte(r))
			continue
		}
		for i, h := range high {
			if h == r {
				out = append(out, byte(0x80+i))
				continue next
			}
		}
		return "", false
	}
	return string(out), true
}

// questionMarks is what a MariaDB server that is not strict makes of b: each
// byte that is not part of valid UTF-8 becomes a question mark.
func questionMarks(b string) string {
	var s strings.Builder
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRuneInString(b[i:])
		if r == utf8.RuneError && n == 1 {
			s.WriteByte('?')
		} else {
			s.WriteString(b[i : i+n])
		}
		i += n
	}
	return s.String()
}

// cut shortens s to n characters.
func cut(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}
