package dbschema

import "unicode/utf8"

// charset is a character set that lacks part of Unicode: those of MySQL that
// are not a form of Unicode.
type charset struct {
	maxlen int             // bytes of its longest character
	set    [1 << 10]uint64 // one bit for each character up to U+FFFF that it has
	upper  [128]rune       // the character of each byte from 0x80 on, '?' for none
}

// newCharset returns a character set that has ASCII and nothing else.
func newCharset(maxlen int) *charset {
	c := &charset{maxlen: maxlen}
	c.set[0], c.set[1] = ^uint64(0), ^uint64(0)
	for i := range c.upper {
		c.upper[i] = '?'
	}
	return c
}

func (c *charset) add(r rune) {
	if r <= 0xFFFF {
		c.set[r>>6] |= 1 << (r & 63)
	}
}

// holds reports whether b is UTF-8 text in characters of c.
func (c *charset) holds(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 || r > 0xFFFF || c.set[r>>6]>>(r&63)&1 == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}
