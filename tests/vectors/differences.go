package vectors

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"unicode/utf8"
)

// Kind says what a Difference does.
type Kind string

// The kinds of differences.
const (
	// Lost rows: the module mirrored the message and lost the row; here it is kept.
	Lost Kind = "row kept"
	// Changed columns: the row is there, the column is another one.
	Changed Kind = "column differs"
	// Unsent rows: the module wrote a row for a message that it did not mirror.
	Unsent Kind = "row impossible"
)

// Difference is one deliberate difference from the real module.
type Difference struct {
	Scenarios string   // pattern of path.Match
	Labels    []string // of hand-made messages; nil means any message
	Kind      Kind
	Columns   []string // Changed: the columns; Lost: columns about which nothing is promised
	Reason    string

	// want gives the value that the column has here; it is asked for Changed
	// columns, and false means that the difference does not apply.
	want func(c change) (string, bool)
}

// change is a column that may differ.
type change struct {
	column   string
	recorded string   // what the module wrote, as characters
	message  *message // the packet's message
	storage  Storage  // where the row goes
}

// oddSets are sets of X-Siptrace headers that the module does not take, and that
// can be understood in one way only.
var oddSets = []string{
	"toip-before-fromip", "time-before-toip", "reverse-order", "dir-before-method", "header-between",
	"no-space-after-colon", "lower-case-names", "first-name-exact-rest-lower", "lf-only", "no-blank-line",
	"fromip-51-chars", "method-51", "missing-call-id",
}

// Differences lists every way in which rows may differ from the module's, with
// the reason. Whatever is not in it is an error.
var Differences = []Difference{
	{
		Scenarios: "*", Kind: Changed, Columns: []string{"fromip", "toip"}, want: brackets,
		Reason: "IPv6 addresses are always in brackets; sip_trace() leaves them out, and readers take the two forms for two parties",
	},
	{
		Scenarios: "*script*", Kind: Changed, Columns: []string{"totag"}, want: ownToTag,
		Reason: "tags are those of the message itself; sip_trace() takes them from the request, which has no To tag yet",
	},
	{
		Scenarios: "xheaders-[cw]*", Kind: Changed, Columns: []string{"totag"}, want: ownToTag,
		Reason: "tags are those of the message itself; sip_trace() takes them from the request, which has no To tag yet",
	},
	{
		Scenarios: "*script*", Kind: Changed, Columns: []string{"method"}, want: ownCSeq,
		Labels: []string{"cseq-method-differs"},
		Reason: "the method of a reply is that of its own CSeq; sip_trace() takes it from the request's first line",
	},
	{
		Scenarios: "spiral-script", Kind: Changed, Columns: []string{"direction"}, want: loneSpiral,
		Reason: "a message from the proxy to itself that was mirrored only once: of two copies the first is out, the second in, and one alone counts as the first",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Labels: []string{"call-id-256", "call-id-300", "call-id-4000"},
		Reason: "a Call-ID over 255 characters is cut at the column's width (SQLite keeps to none: at 4,096 bytes); the module's INSERT fails",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Labels: []string{"from-tag-129", "from-tag-300", "to-tag-129"},
		Reason: "a tag over 128 characters is cut at the column's width; the module's INSERT fails",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Labels: []string{"method-51"},
		Reason: "a method over 50 characters is cut at the column's width; the module's INSERT fails",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Labels: []string{"body-32400", "body-60000", "total-65400"},
		Reason: "no buffer of 65,535 bytes for the SQL text, so large messages are stored",
	},
	{
		Scenarios: "edge-*", Kind: Lost,
		Labels: []string{"latin1-display-name", "latin1-in-call-id", "latin1-in-body", "binary-body", "reply-latin1-reason"},
		Reason: "a message that is not valid UTF-8 is stored with each byte from 0x80 up as the Latin-1 character of that value; the module's INSERT fails",
	},
	{
		Scenarios: "edge-latin1-table", Kind: Lost,
		Labels: []string{"utf8-cjk", "utf8-emoji-4-byte", "utf8-in-call-id", "utf8-in-body"},
		Reason: "characters that a latin1 table does not have are stored byte by byte; the module's INSERT fails",
	},
	{
		Scenarios: "edge-nonstrict", Kind: Changed, Columns: []string{"callid", "msg", "fromtag", "totag", "method"}, want: noQuestionMarks,
		Labels: []string{"latin1-display-name", "latin1-in-call-id", "latin1-in-body", "binary-body", "reply-latin1-reason"},
		Reason: "bytes that are not valid UTF-8 are stored as Latin-1 characters; a server that is not strict makes question marks of them",
	},
	{
		Scenarios: "edge-*", Kind: Changed, Columns: []string{"callid", "msg"}, want: noNUL,
		Labels: []string{"nul-in-body", "nul-in-header", "nul-in-call-id", "binary-body"},
		Reason: "PostgreSQL has no NUL in text: it becomes the character U+2400",
	},
	{
		Scenarios: "edge-nonstrict", Kind: Changed, Columns: []string{"callid", "method", "fromtag", "totag"}, want: notCut,
		Labels: []string{"call-id-256", "call-id-300", "call-id-4000", "from-tag-129", "from-tag-300", "to-tag-129", "method-51"},
		Reason: "SQLite keeps to no width; the recorded server, which was not strict, cut the value",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Columns: []string{"fromtag"},
		Labels: []string{"folded-headers", "from-broken", "from-empty", "missing-from"},
		Reason: "a From header that is missing, or that the module cannot read, does not lose the row",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Labels: []string{"missing-call-id", "reply-missing-call-id", "missing-to", "missing-all-headers"},
		Reason: "a missing Call-ID or To gives an empty column, not a lost row",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Labels: []string{"missing-cseq", "cseq-without-method", "folded-cseq", "reply-missing-cseq"},
		Reason: "a CSeq that is missing or cannot be read does not lose the row; a reply then has an empty method",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Columns: []string{"callid", "fromtag"}, Labels: []string{"two-call-ids", "two-froms"},
		Reason: "two headers where one may be do not lose the row",
	},
	{
		Scenarios: "edge-*", Kind: Lost, Columns: []string{"status"},
		Labels: []string{"reply-no-reason-no-space", "reply-code-2-digits", "reply-code-4-digits", "reply-code-letters"},
		Reason: "a status line with an odd code, or without a reason, does not lose the row",
	},
	{
		Scenarios: "xheaders-odd*", Kind: Lost,
		Labels: oddSets,
		Reason: "X-Siptrace headers that can be understood in one way only are taken: any order and letter case, other headers in between, any blanks, LF line ends, no blank line, long values, no Call-ID",
	},
	{
		Scenarios: "xheaders-odd*", Kind: Lost, Labels: []string{"trailing-header-after", "xheaders-in-the-middle"},
		Reason: "only the five X-Siptrace headers are cut from the message",
	},
	{
		Scenarios: "xheaders-odd*", Kind: Unsent, Labels: []string{"trailing-header-after", "xheaders-in-the-middle"},
		Reason: "the module cuts what stands between and behind the X-Siptrace headers, too",
	},
	{
		Scenarios: "xheaders-odd*", Kind: Unsent, Labels: []string{"dir-long", "time-huge"},
		Reason: "a direction that is neither in nor out, and a time beyond the year 9999, are refused",
	},
	{
		Scenarios: "edge-sql-buffer", Kind: Unsent, Labels: []string{"total-65500"},
		Reason: "its HEP packet would be over 65,535 bytes, and Kamailio does not send it",
	},
}

func (d *Difference) applies(s *Scenario, kind Kind, label string) bool {
	return d.Kind == kind && s.matches(d.Scenarios) && (d.Labels == nil || slices.Contains(d.Labels, label))
}

// Table prints Differences as a table in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| recordings | messages | what | why |\n|---|---|---|---|\n")
	for _, d := range Differences {
		labels := "any"
		if d.Labels != nil {
			labels = strings.Join(d.Labels, ", ")
		}
		what := string(d.Kind)
		if d.Kind == Changed {
			what = strings.Join(d.Columns, ", ") + " differs"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Scenarios, labels, what, d.Reason)
	}
	return b.String()
}

// brackets puts an IPv6 address of proto:address:port into brackets.
func brackets(c change) (string, bool) {
	proto, rest, _ := strings.Cut(c.recorded, ":")
	i := strings.LastIndexByte(rest, ':')
	if i < 0 || !strings.Contains(rest[:i], ":") || rest[0] == '[' {
		return "", false
	}
	return proto + ":" + net.JoinHostPort(rest[:i], rest[i+1:]), true
}

func ownToTag(c change) (string, bool) {
	own := columns(string(c.message.payload)).ToTag
	return own, c.recorded == "" && own != ""
}

func ownCSeq(c change) (string, bool) {
	own := columns(string(c.message.payload))
	return own.Method, own.Status != ""
}

func loneSpiral(c change) (string, bool) {
	m := c.message
	return "out", m.src == m.dst && c.recorded == "in" && strings.HasPrefix(string(m.payload), "ACK ")
}

func noNUL(c change) (string, bool) {
	return strings.ReplaceAll(c.recorded, "\x00", NULStandIn), c.storage.noNUL
}

func notCut(c change) (string, bool) {
	own := columns(string(c.message.payload))
	v := *own.Column(c.column)
	return v, c.storage.wide > 0 && strings.HasPrefix(v, c.recorded)
}

func noQuestionMarks(c change) (string, bool) {
	p := string(c.message.payload)
	if utf8.ValidString(p) {
		return "", false
	}
	own := columns(p)
	return text(*own.Column(c.column)), true
}
