package vectors

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// xset is what X-Siptrace headers say, as text.
type xset struct{ from, to, time, method, dir string }

// text writes the headers as the module does.
func (x xset) text() string {
	return "X-Siptrace-Fromip: " + x.from + "\r\nX-Siptrace-Toip: " + x.to + "\r\nX-Siptrace-Time: " + x.time +
		"\r\nX-Siptrace-Method: " + x.method + "\r\nX-Siptrace-Dir: " + x.dir + "\r\n"
}

var (
	blankLine = regexp.MustCompile(`\n\r?\n`)
	xline     = regexp.MustCompile(`(?i)^x-siptrace-(fromip|toip|time|method|dir)[ \t]*:(.*)\n$`)
)

// readX takes the X-Siptrace headers out of a message, wherever they stand in
// its header section and whatever the letter case of their names: the first of
// each name counts.
func readX(msg []byte) (plain []byte, x xset, found bool) {
	head := len(msg)
	if i := blankLine.FindIndex(msg); i != nil {
		head = i[0] + 1
	}
	seen := make(map[string]bool)
	for line := range bytes.Lines(msg[:head]) {
		m := xline.FindSubmatch(line)
		if m == nil {
			plain = append(plain, line...)
			continue
		}
		name, value := strings.ToLower(string(m[1])), strings.TrimSpace(string(m[2]))
		if seen[name] {
			continue
		}
		seen[name] = true
		*map[string]*string{"fromip": &x.from, "toip": &x.to, "time": &x.time, "method": &x.method, "dir": &x.dir}[name] = value
	}
	return append(plain, msg[head:]...), x, len(seen) > 0
}

// writeX puts headers between the last header and the blank line.
func writeX(msg []byte, x xset) []byte {
	head := len(msg)
	if i := blankLine.FindIndex(msg); i != nil {
		head = i[0] + 1
	}
	return append(append(append([]byte(nil), msg[:head]...), x.text()...), msg[head:]...)
}

// tracedX is the message of a SIP duplicate with headers. The error says what
// makes the set useless.
func tracedX(msg []byte) (traced, error) {
	plain, x, found := readX(msg)
	if !found {
		return traced{}, fmt.Errorf("no headers")
	}
	word := func(s string) bool { return s != "" && len(strings.Fields(s)) == 1 }
	secText, usText, _ := strings.Cut(x.time, " ")
	sec, err1 := strconv.ParseInt(secText, 10, 64)
	us, err2 := strconv.ParseInt(strings.TrimSpace(usText), 10, 64)
	switch {
	case !word(x.from), !word(x.to), utf8.RuneCountInString(x.from) > 64, utf8.RuneCountInString(x.to) > 64:
		return traced{}, fmt.Errorf("addresses %q, %q", x.from, x.to)
	case err1 != nil || err2 != nil || sec < 0 || us < 0:
		return traced{}, fmt.Errorf("time %q", x.time)
	case x.method != "" && !word(x.method):
		return traced{}, fmt.Errorf("method %q", x.method)
	case x.dir != "in" && x.dir != "out":
		return traced{}, fmt.Errorf("direction %q", x.dir)
	case x.method == "" && x.time != "0 0": // only trace_mode 4 leaves it out
		return traced{}, fmt.Errorf("no method")
	}
	t := traced{from: x.from, to: x.to, dir: x.dir, method: x.method, timeless: x.time == "0 0"}
	t.kind, t.payload = 1, plain
	t.sec, t.us = uint32(sec+us/1_000_000), uint32(us%1_000_000)
	var from, to bool
	if t.proto, t.src, from = parseEndpoint(x.from); from {
		_, t.dst, to = parseEndpoint(x.to)
	}
	if !from || !to {
		t.proto = 0 // HEP has no place for what is no address
	}
	if t.method == "" {
		t.method = columns(string(plain)).Method
	}
	return t, nil
}

// duplicate writes t as a SIP duplicate with headers.
func (t *traced) duplicate() []byte {
	return writeX(t.payload, xset{t.from, t.to, fmt.Sprintf("%d %d", t.sec, t.us), t.method, t.dir})
}
