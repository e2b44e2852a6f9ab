package vectors

import (
	"regexp"
	"strings"
)

// columns fills the columns of a row that follow from the message, for a
// message whose headers are written plainly. It is a reading aid for the rows
// that the module lost, and is itself checked against those that it wrote.
func columns(msg string) Row {
	head, _, _ := strings.Cut(msg, "\r\n\r\n")
	r := Row{Msg: msg}
	first, _, _ := strings.Cut(head, "\r\n")
	word, rest, _ := strings.Cut(strings.TrimLeft(first, " \r\n"), " ")
	r.CallID = header(head, "call-id", "i")
	r.FromTag = tag(header(head, "from", "f"))
	r.ToTag = tag(header(head, "to", "t"))
	if !strings.EqualFold(word, "SIP/2.0") {
		r.Method = word
		return r
	}
	r.Status, _, _ = strings.Cut(rest, " ")
	if f := strings.Fields(header(head, "cseq")); len(f) > 1 {
		r.Method = f[1]
	}
	return r
}

// RowOf is the row that a HEP packet gives whose message has plainly written
// headers. It has no direction.
func RowOf(packet []byte) (Row, error) {
	m, err := decodeHEP(packet)
	if err != nil {
		return Row{}, err
	}
	r := columns(string(m.payload))
	r.TimeStamp, r.TimeUS = m.time().Format("2006-01-02 15:04:05"), int64(m.us)
	r.FromIP, r.ToIP = endpoint(m.proto, m.src), endpoint(m.proto, m.dst)
	return r, nil
}

// header returns the value of the first header with one of the names.
func header(head string, names ...string) string {
	head = regexp.MustCompile(`\r?\n[ \t]+`).ReplaceAllString(head, " ")
	for line := range strings.Lines(head) {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		for _, n := range names {
			if strings.EqualFold(strings.TrimSpace(name), n) {
				return strings.TrimSpace(value)
			}
		}
	}
	return ""
}

var tagParam = regexp.MustCompile(`(?i);\s*tag\s*=\s*"?([^;>"\s]*)`)

// tag returns the tag parameter of a From or To value, the last one if there
// are more.
func tag(value string) string {
	if i := strings.LastIndexByte(value, '>'); i >= 0 {
		value = value[i:]
	}
	all := tagParam.FindAllStringSubmatch(value, -1)
	if all == nil {
		return ""
	}
	return all[len(all)-1][1]
}

// isSIP reports whether the first line is that of a SIP/2.0 request or reply.
// sip_trace() takes the version in any letter case, and so does RFC 3261 §7.1.
func isSIP(msg string) bool {
	line, _, _ := strings.Cut(strings.TrimLeft(msg, " \r\n"), "\n")
	line = strings.ToUpper(strings.TrimRight(line, "\r "))
	return strings.HasPrefix(line, "SIP/2.0") || strings.HasSuffix(line, " SIP/2.0")
}
