package vectors

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// The kinds of differences of packets.
const (
	// Added packets: the module sent none for the message.
	Added Kind = "also mirrored"
	// Altered packets: the module sent another one.
	Altered Kind = "packet differs"
	// Refused packets: the module sent one, here none is sent.
	Refused Kind = "not mirrored"
)

// MirrorDifference is one deliberate difference from what the real module sends.
type MirrorDifference struct {
	Ways   string   // pattern of path.Match over scenario: way
	Labels []string // of hand-made messages; nil means any message
	Kind   Kind
	Reason string

	// like says whether the difference is what it is meant to be: ours and theirs
	// are the packets, nil where there is none.
	like func(t *traced, ours, theirs []byte) bool
}

// MirrorDifferences lists every way in which mirrored packets may differ from
// the module's, with the reason. Whatever is not in it is an error.
var MirrorDifferences = []MirrorDifference{
	{
		Ways: "xheaders-*: rows*", Kind: Added, like: withoutDestination,
		Reason: "a stateless reply and a received CANCEL are mirrored like all else; the module traces them without a destination",
	},
	{
		Ways: "xheaders-write-ipv6: rows", Kind: Altered, like: unbracketed,
		Reason: "IPv6 addresses are always in brackets; sip_trace() leaves them out",
	},
	{
		Ways: "script-db-only: rows", Kind: Added,
		Reason: "duplicate_uri mirrors beside the database; the module does so only for sip_trace() with an address",
	},
	{
		Ways: "mode2-db-only: rows", Kind: Added,
		Reason: "hep_mode_on with a duplicate_uri mirrors also with trace_mode 2",
	},
	{
		Ways: "traced-user-off: HEP", Kind: Refused,
		Reason: "trace_on 0 mirrors nothing; in the module the callbacks of sip_trace() go on with HEP",
	},
	{
		Ways: "sip-trace-msg-v614: HEP", Kind: Refused, like: notSIP,
		Reason: "HEP that says SIP and is not SIP is refused and counted; sip_trace_msg() sends any text as SIP",
	},
	{
		Ways: "xheaders-chain-hep: SIP duplicates", Kind: Altered, like: otherTime,
		Reason: "HEP has the time of the message; the module gives that of relaying (here with mirror_time relay)",
	},
	{
		Ways: "xheaders-mode4: plain SIP", Kind: Altered, like: sameMessage,
		Reason: "xheaders_write holds in trace_mode 4 as well; the module ignores it there without an event route",
	},
	{
		Ways: "xheaders-mode4-evroute: *", Kind: Altered, like: sameMessage,
		Reason: "time and method are filled in: \"0 0\" and an empty method are never written",
	},
	{
		Ways: "xheaders-mode7-evroute: *", Kind: Altered, like: sameMessage,
		Reason: "time and method are filled in: \"0 0\" and an empty method are never written",
	},
	{
		Ways: "xheaders-odd*", Kind: Added,
		Labels: oddSets,
		Reason: "a set that can be understood in one way only is taken: any order and letter case, other headers in between, any blanks, LF line ends, no blank line, long values, no Call-ID",
	},
	{
		Ways: "xheaders-odd: *", Kind: Altered,
		Labels: []string{
			"toip-before-fromip", "time-before-toip", "reverse-order", "dir-before-method", "header-between",
			"first-name-exact-rest-lower", "fromip-51-chars", "method-51",
		},
		Reason: "the same; 5.6.3 sends leftovers of its memory in the place of what it did not read",
	},
	{
		Ways: "xheaders-odd*", Kind: Altered, like: sameMessageButHeaders,
		Labels: []string{"trailing-header-after", "xheaders-in-the-middle"},
		Reason: "only the five headers are cut; the module cuts what stands between and behind them, too",
	},
	{
		Ways: "xheaders-odd*", Kind: Altered, like: otherTime,
		Labels: []string{"time-zero"},
		Reason: "time 0 0 means not known: the time of arrival is taken",
	},
	{
		Ways: "xheaders-odd*", Kind: Altered, like: otherTime,
		Labels: []string{"time-usec-large"},
		Reason: "microseconds over a second are carried: the same instant",
	},
	{
		Ways: "xheaders-odd*", Kind: Refused,
		Labels: []string{"dir-long", "time-huge", "time-negative"},
		Reason: "a direction that is neither in nor out, and a time before 1970 or beyond the year 9999, are refused",
	},
	{
		Ways: "xheaders-odd: *", Kind: Refused,
		Labels: []string{
			"toip-missing", "time-missing", "method-missing", "dir-missing", "time-letters", "time-one-number",
			"fromip-empty", "dir-empty", "trailing-junk-in-value", "time-with-comment",
		},
		Reason: "a malformed set is refused, as by 6.1.4; 5.6.3 sends leftovers of its memory",
	},
}

// differs finds the difference that explains a pair of packets.
func (m *Mirror) differs(kind Kind, label string, t *traced, ours, theirs []byte) *MirrorDifference {
	for i := range MirrorDifferences {
		d := &MirrorDifferences[i]
		match, err := path.Match(d.Ways, m.Name+": "+m.Way)
		if err == nil && match && d.Kind == kind && (d.Labels == nil || slices.Contains(d.Labels, label)) &&
			(d.like == nil || d.like(t, ours, theirs)) {
			return d
		}
	}
	return nil
}

// MirrorTable prints MirrorDifferences as a table in Markdown.
func MirrorTable() string {
	var b strings.Builder
	b.WriteString("| recordings: input | messages | what | why |\n|---|---|---|---|\n")
	for _, d := range MirrorDifferences {
		labels := "any"
		if d.Labels != nil {
			labels = strings.Join(d.Labels, ", ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Ways, labels, d.Kind, d.Reason)
	}
	return b.String()
}

func withoutDestination(t *traced, _, _ []byte) bool {
	c := columns(string(t.payload))
	own := t.dir == "out" && c.Status != "" && strings.Contains(string(t.payload), "Server: ")
	return own || t.dir == "in" && c.Method == "CANCEL" && c.Status == ""
}

func unbracketed(_ *traced, ours, theirs []byte) bool {
	plain, x, _ := readX(theirs)
	x.from, x.to = bracketed(x.from), bracketed(x.to)
	return bytes.Equal(ours, writeX(plain, x))
}

func notSIP(t *traced, _, _ []byte) bool { return !isSIP(string(t.payload)) }

func otherTime(_ *traced, ours, theirs []byte) bool {
	return bytes.Equal(maskTime(ours), maskTime(theirs))
}

func sameMessage(_ *traced, ours, theirs []byte) bool {
	return bytes.Equal(payloadOf(ours), payloadOf(theirs))
}

// sameMessageButHeaders: the module's is ours with some lines missing.
func sameMessageButHeaders(_ *traced, ours, theirs []byte) bool {
	lines := strings.SplitAfter(string(theirs), "\n")
	for line := range strings.Lines(string(ours)) {
		if len(lines) > 0 && lines[0] == line {
			lines = lines[1:]
		}
	}
	return strings.Join(lines, "") == ""
}
