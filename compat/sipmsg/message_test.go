package sipmsg

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	var m Message
	if err := m.Parse(invite); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ name, got, want string }{
		{"method", string(m.Method), "INVITE"},
		{"Request-URI", string(m.RequestURI), "sip:bob@biloxi.example.com;transport=udp"},
		{"Call-ID", string(m.CallID), "a84b4c76e66710@pc33.atlanta.example.com"},
		{"CSeq number", string(m.CSeqNumber), "314159"},
		{"CSeq method", string(m.CSeqMethod), "INVITE"},
		{"From", string(m.From.Raw), `"Alice" <sip:alice@atlanta.example.com>;tag=1928301774`},
		{"From display", string(m.From.Display()), "Alice"},
		{"From URI", string(m.From.URI), "sip:alice@atlanta.example.com"},
		{"From tag", string(m.From.Tag), "1928301774"},
		{"To URI", string(m.To.URI), "sip:bob@biloxi.example.com"},
		{"Contact", string(m.Contact.URI), "sip:alice@198.51.100.20:5060;transport=udp"},
		{"Via transport", string(m.Via.Transport), "UDP"},
		{"Via host", string(m.Via.Host), "192.0.2.10"},
		{"Via port", string(m.Via.Port), "5060"},
		{"Via branch", string(m.Via.Branch), "z9hG4bK3f9a.7d21"},
		{"User-Agent", string(m.UserAgent), "Deskphone 9000/4.2.1"},
		{"Content-Type", string(m.ContentType), "application/sdp"},
		{"headers", string(m.HeaderSection[:4]) + string(m.HeaderSection[len(m.HeaderSection)-5:]), "Via:220\r\n"},
		{"body", string(m.Body[:5]), "v=0\r\n"},
		{"defects", m.Defects.String(), ""},
	} {
		if f.got != f.want {
			t.Errorf("%s: got %q, want %q", f.name, f.got, f.want)
		}
	}
	if !m.IsRequest || m.ContentLength != 220 || m.To.Tag != nil || m.Status != nil {
		t.Errorf("IsRequest %v, ContentLength %d, To tag %q, Status %q", m.IsRequest, m.ContentLength, m.To.Tag, m.Status)
	}
}

// A Message is reused: nothing of the message before may shine through.
func TestParseResets(t *testing.T) {
	var m Message
	if err := m.Parse(invite); err != nil {
		t.Fatal(err)
	}
	if err := m.Parse([]byte("SIP/2.0 100 Trying\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if m.IsRequest || m.Method != nil || m.RequestURI != nil || m.CallID != nil || m.From.URI != nil ||
		m.Via.Host != nil || m.ContentLength != -1 || m.ContentType != nil || len(m.Body) != 0 {
		t.Errorf("leftovers: %+v", m)
	}
	if err := m.Parse([]byte("HELLO")); !errors.Is(err, ErrNotSIP) || m.Status != nil || m.HeaderSection != nil {
		t.Errorf("got %v, %+v", err, m)
	}
}

// NULs behind the message go; those that Content-Length counts stay.
func TestCutNULs(t *testing.T) {
	const nuls = "\x00\x00\x00\x00\x00\x00\x00\x00"
	const head = "OPTIONS sip:b@h SIP/2.0\r\nContent-Length: "
	for _, tt := range []struct {
		name, text string
		cut        int
		defects    Defect
	}{
		{"no body", head + "0\r\n\r\n" + nuls, 8, 0},
		{"body", head + "2\r\n\r\nxy" + nuls, 8, 0},
		{"body with NULs of its own", head + "4\r\n\r\nxy\x00\x00" + nuls, 8, 0},
		{"no NULs", head + "2\r\n\r\nxy", 0, 0},
		{"other bytes behind the body", head + "2\r\n\r\nxyz" + nuls, 8, LongBody},
		{"NULs before other bytes", head + "0\r\n\r\n" + nuls + "z", 0, LongBody},
		{"cut within the body", head + "20\r\n\r\nxy" + nuls, 0, ShortBody},
		{"no length", "OPTIONS sip:b@h SIP/2.0\r\nSubject: x\r\n\r\nxy" + nuls, 8, 0},
		{"odd length", head + "x\r\n\r\nxy" + nuls, 8, BadContentLength},
		{"no blank line", head + "0\r\n", 0, NoBlankLine},
	} {
		var m Message
		if err := m.Parse([]byte(tt.text)); err != nil {
			t.Fatal(err)
		}
		n := m.CutNULs()
		const framing = LongBody | ShortBody | BadContentLength | NoBlankLine
		if want := tt.text[:len(tt.text)-tt.cut]; n != tt.cut || string(m.Raw) != want || !bytes.HasSuffix(m.Raw, m.Body) || m.Defects&framing != tt.defects {
			t.Errorf("%s: got %d, %q, body %q, %v, want %d, %q, %v", tt.name, n, m.Raw, m.Body, m.Defects&framing, tt.cut, want, tt.defects)
		}
	}
}

func TestStartLine(t *testing.T) {
	tests := []struct {
		name    string
		line    string
		method  string
		uri     string
		status  string
		reason  string
		defects Defect
		notSIP  bool
	}{
		{name: "request", line: "ACK sip:a@b SIP/2.0\r\n", method: "ACK", uri: "sip:a@b"},
		{name: "tabs", line: "ACK\tsip:a@b\tSIP/2.0\r\n", method: "ACK", uri: "sip:a@b"},
		{name: "no line end", line: "ACK sip:a@b SIP/2.0", method: "ACK", uri: "sip:a@b"},
		{name: "after line ends and blanks", line: "\r\n\n \tACK sip:a@b SIP/2.0\n", method: "ACK", uri: "sip:a@b"},
		{name: "tab in uri", line: "ACK sip:a@b\t;lr SIP/2.0\r\n", method: "ACK", uri: "sip:a@b\t;lr", defects: BadRequestURI},
		{name: "mixed case version", line: "ACK sip:a@b Sip/2.0\r\n", method: "ACK", uri: "sip:a@b", defects: VersionCase},
		{name: "method beyond ASCII", line: "\xc3\x84CK sip:a@b SIP/2.0\r\n", method: "\xc3\x84CK", uri: "sip:a@b"},
		{name: "reply", line: "SIP/2.0 200 OK\r\n", status: "200", reason: "OK"},
		{name: "reason with blanks", line: "SIP/2.0 480  Not now \r\n", status: "480", reason: " Not now "},
		{name: "several blanks", line: "SIP/2.0  200 OK\r\n", status: "200", reason: "OK"},
		{name: "reply like a request", line: "SIP/2.0 sip:a@b SIP/2.0\r\n", status: "sip:a@b", reason: "SIP/2.0", defects: BadStatus},
		{name: "lower case reply", line: "sip/2.0 200\r\n", status: "200", defects: VersionCase | NoReason},

		{name: "empty", line: "", notSIP: true},
		{name: "version alone", line: "SIP/2.0\r\n", notSIP: true},
		{name: "version and blank", line: "SIP/2.0 \r\n", notSIP: true},
		{name: "no blank before the code", line: "SIP/2.0200 OK\r\n", notSIP: true},
		{name: "no uri", line: "ACK SIP/2.0\r\n", notSIP: true},
		{name: "no uri, two blanks", line: "ACK  SIP/2.0\r\n", notSIP: true},
		{name: "no method", line: "sip:a@bSIP/2.0\r\n", notSIP: true},
		{name: "version glued on", line: "ACK sip:a@bSIP/2.0\r\n", notSIP: true},
		{name: "NUL in method", line: "A\x00K sip:a@b SIP/2.0\r\n", notSIP: true},
		{name: "version on the second line", line: "ACK sip:a@b\r\n SIP/2.0\r\n", notSIP: true},
		{name: "longer version", line: "ACK sip:a@b SIP/2.0.1\r\n", notSIP: true},
	}
	const headers = "Via: SIP/2.0/UDP a\r\nCall-ID: x\r\nFrom: <sip:a>\r\nTo: <sip:b>\r\n"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m Message
			in := tt.line
			if strings.HasSuffix(in, "\n") {
				in += headers + "CSeq: 1 ACK\r\n\r\n"
			}
			err := m.Parse([]byte(in))
			if errors.Is(err, ErrNotSIP) != tt.notSIP {
				t.Fatal(err)
			}
			want := tt.defects
			if !strings.HasSuffix(tt.line, "\n") && !tt.notSIP {
				want |= NoBlankLine | MissingCallID | MissingCSeq | MissingFrom | MissingTo | MissingVia
			}
			if tt.method != "" && tt.method != "ACK" {
				want |= MethodMismatch
			}
			if string(m.Method) != tt.method || string(m.RequestURI) != tt.uri || string(m.Status) != tt.status ||
				string(m.Reason) != tt.reason || m.Defects != want {
				t.Errorf("got %q %q %q %q, defects %v, want %v", m.Method, m.RequestURI, m.Status, m.Reason, m.Defects, want)
			}
			if m.IsRequest != (tt.method != "") {
				t.Errorf("IsRequest %v", m.IsRequest)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	callID := func(m *Message) string { return string(m.CallID) }
	cseq := func(m *Message) string { return string(m.CSeqNumber) + "|" + string(m.CSeqMethod) }
	length := func(m *Message) string {
		if m.ContentLength < 0 {
			return "none"
		}
		return strings.Repeat("1", m.ContentLength)
	}
	body := func(m *Message) string { return string(m.Body) }
	const rest = MissingCallID | MissingCSeq | MissingFrom | MissingTo | MissingVia
	tests := []struct {
		name, headers string
		get           func(*Message) string
		want          string
		defects       Defect
	}{
		{"folded twice", "Call-ID: a\r\n\t b\r\n c\r\n\r\n", callID, "a\r\n\t b\r\n c", rest &^ MissingCallID},
		{"folded with LF", "Call-ID:\n a\nX: y\n\n", callID, "a", rest &^ MissingCallID},
		{"fold at the end of input", "Call-ID: a\r\n b", callID, "a\r\n b", rest&^MissingCallID | NoBlankLine},
		{"fold of blanks only", "Call-ID: \r\n \r\n\r\n", callID, "", rest &^ MissingCallID},
		{"no value, no line end", "Call-ID:", callID, "", rest&^MissingCallID | NoBlankLine},
		{"the name in a value", "X: Call-ID: a\r\n\r\n", callID, "", rest},
		{"prefix of the name", "Call-I: a\r\n\r\n", callID, "", rest},
		{"NUL in the name", "Call-ID\x00: a\r\n\r\n", callID, "", rest},
		{"colon first", ": a\r\nCall-ID: b\r\n\r\n", callID, "b", rest&^MissingCallID | BadHeader},
		{"no colon, folded", "stray\r\n Call-ID: a\r\n\r\n", callID, "", rest | BadHeader},
		{"first one counts", "i: a\r\nCall-ID: b\r\n\r\n", callID, "a", rest&^MissingCallID | DuplicateCallID},
		{"empty first one counts", "i:\r\nCall-ID: b\r\n\r\n", callID, "", rest&^MissingCallID | DuplicateCallID},
		{"in the body", "\r\nCall-ID: a\r\n", callID, "", rest},
		{"lone CR at the end", "Call-ID: a\r\n\r", callID, "a", rest&^MissingCallID | NoBlankLine},
		{"LF ends the headers", "Call-ID: a\n\nbody", body, "body", rest &^ MissingCallID},
		{"mixed line ends", "Call-ID: a\n\r\nbody", body, "body", rest &^ MissingCallID},

		{"CSeq", "CSeq:7 BYE \r\n\r\n", cseq, "7|BYE", rest &^ MissingCSeq},
		{"CSeq folded", "cseq: 7\r\n BYE\r\n\r\n", cseq, "7|BYE", rest &^ MissingCSeq},
		{"CSeq highest", "CSeq: 2147483647 BYE\r\n\r\n", cseq, "2147483647|BYE", rest &^ MissingCSeq},
		{"CSeq too high", "CSeq: 2147483648 BYE\r\n\r\n", cseq, "2147483648|BYE", rest&^MissingCSeq | BadCSeq},
		{"CSeq with three words", "CSeq: 7 BYE now\r\n\r\n", cseq, "7|BYE", rest&^MissingCSeq | BadCSeq},
		{"CSeq empty", "CSeq:\r\n\r\n", cseq, "|", rest&^MissingCSeq | BadCSeq},

		{"Content-Length", "l: 3\r\n\r\nabc", length, "111", rest},
		{"Content-Length 0", "Content-length : 0 \r\n\r\n", length, "", rest},
		{"Content-Length absent", "\r\nabc", length, "none", rest},
		{"Content-Length with a sign", "l: +3\r\n\r\nabc", length, "none", rest | BadContentLength},
		{"Content-Length of two words", "l: 3 3\r\n\r\nabc", length, "none", rest | BadContentLength},
		{"Content-Length empty", "l:\r\n\r\nabc", length, "none", rest | BadContentLength},
		{"Content-Length huge", "l: 99999999999999999999999999\r\n\r\nabc", length, "none", rest | BadContentLength},
		{"Content-Length twice, first one bad", "l: x\r\nl: 3\r\n\r\nabc", length, "none", rest | BadContentLength | DuplicateContentLength},

		{"From without a bracket's end", "f: <sip:a@b;tag=c\r\n\r\n", fromTag, "", rest&^MissingFrom | BadFrom},
		{"Via without host", "v: SIP/2.0/UDP\r\n\r\n", func(m *Message) string { return string(m.Via.Transport) }, "UDP", rest&^MissingVia | BadVia},
		{"second Via bad", "v: SIP/2.0/UDP a\r\nVia: b\r\n\r\n", func(m *Message) string { return string(m.Via.Host) }, "a", rest &^ MissingVia},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m Message
			if err := m.Parse([]byte("SIP/2.0 200 OK\r\n" + tt.headers)); err != nil {
				t.Fatal(err)
			}
			if got := tt.get(&m); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if m.Defects != tt.defects {
				t.Errorf("defects %v, want %v", m.Defects, tt.defects)
			}
		})
	}
}

func fromTag(m *Message) string { return string(m.From.Tag) }

func TestHeaderLookup(t *testing.T) {
	var m Message
	if err := m.Parse([]byte("OPTIONS sip:a SIP/2.0\r\n" +
		"v: one\r\nVIA: two\r\ni : c1 \r\nstray\r\nX-Empty:\r\nX-Folded: a\r\n b \r\nz: zulu\r\nSubject: s\r\n\r\nBody-Header: no\r\n")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		ok         bool
	}{
		{"Via", "one", true},
		{"v", "one", true},
		{"V", "one", true},
		{"call-id", "c1", true},
		{"I", "c1", true},
		{"s", "s", true},
		{"x-empty", "", true},
		{"X-FOLDED", "a\r\n b", true},
		{"Z", "zulu", true},
		{"stray", "", false},
		{"Body-Header", "", false},
		{"", "", false},
		{"To", "", false},
	} {
		if got, ok := m.Header(tt.name); string(got) != tt.want || ok != tt.ok {
			t.Errorf("%q: got %q, %v, want %q, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}

	var got []string
	for h := range m.Headers() {
		got = append(got, string(h.Name)+"="+string(h.Value()))
	}
	want := "v=one|VIA=two|i=c1|X-Empty=|X-Folded=a\r\n b|z=zulu|Subject=s"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got %q, want %q", s, want)
	}
	for h := range m.Headers() {
		if string(h.Name) != "v" {
			t.Errorf("%q after the first", h.Name)
		}
		break
	}
}

// The compact forms in use, both ways.
func TestCompactNames(t *testing.T) {
	for c, name := range map[string]string{
		"a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
		"e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported",
		"l": "Content-Length", "m": "Contact", "n": "Identity-Info", "o": "Event", "r": "Refer-To", "s": "Subject",
		"t": "To", "u": "Allow-Events", "v": "Via", "x": "Session-Expires", "y": "Identity",
	} {
		for written, asked := range map[string]string{c: name, strings.ToUpper(c): name, name: c} {
			var m Message
			if err := m.Parse([]byte("SIP/2.0 200 OK\r\n" + written + ": yes\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			if v, ok := m.Header(asked); !ok || string(v) != "yes" {
				t.Errorf("%s written, %s asked for: got %q, %v", written, asked, v, ok)
			}
		}
	}
}

func TestDefectString(t *testing.T) {
	if bit := Defect(1) << (len(defectNames) - 1); bit != VersionCase {
		t.Errorf("%d names, last bit %b", len(defectNames), VersionCase)
	}
	for _, tt := range []struct {
		d    Defect
		want string
	}{
		{0, ""},
		{BadStatus, "bad_status"},
		{MissingCallID | VersionCase, "missing_call_id,version_case"},
		{VersionCase << 1, ""},
	} {
		if got := tt.d.String(); got != tt.want {
			t.Errorf("%b: got %q, want %q", tt.d, got, tt.want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	all := torture(t)
	delete(all, "badvers")
	all["invite"], all["ok200"] = invite, ok200
	var m Message
	for name, msg := range all {
		n := testing.AllocsPerRun(100, func() {
			if m.Parse(msg) != nil {
				t.Fatal(name)
			}
			m.MethodName()
			m.Header("Content-Length")
			m.Header("i")
			for h := range m.Headers() {
				if len(h.Name) == 0 {
					t.Fatal("empty name")
				}
			}
			for via := range m.Vias() {
				if via.Raw == nil {
					t.Fatal("Via without a value")
				}
			}
			ParseURI(m.RequestURI)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, n, _ := Split(invite); n == 0 {
			t.Fatal("not split")
		}
	}); n != 0 {
		t.Errorf("Split: %v allocations", n)
	}
}
