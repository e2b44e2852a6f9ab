package sipmsg

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The cases of RFC 4475 (SIP torture test messages), in messages of our own: what a tracer must get out of
// each. A proxy refuses many of them; a tracer shows them all but badvers, which is not SIP/2.0.
func TestTorture(t *testing.T) {
	long := strings.Repeat("long", 60)
	tests := []struct {
		name    string
		method  string
		uri     string
		status  string
		callID  string
		fromTag string
		toTag   string
		branch  string
		defects Defect
	}{
		{name: "wsinv", method: "INVITE", uri: "sip:vera@chair.example.com;unknownparam", callID: "wsinv.ndaksdj@192.0.2.1", fromTag: "98asjd8", toTag: "1918181833n", branch: "390skdjuw"},
		{name: "intmeth", method: "!odd-Method0123456789_*+`.%indeed'~", uri: "sip:1_odd.URI~(to-be!sure)&isn't+it$/strange?,/;;*:&it+has=1,strange!*pas$wo~d_too.(hasn't-it)@example.com", callID: `intmeth.word%ZK-!.*_+'@word` + "`" + `~)(><:\/"][?}{`, fromTag: "_token~1'+`*%!-.", branch: "z9hG4bK-.!%66*_+`'~"},
		{name: "esc01", method: "INVITE", uri: "sip:sips%3Auser%40example.com@example.net", callID: "esc01.239409asdfakjkn23onasd0-3234", fromTag: "938", branch: "z9hG4bKkdjuw"},
		{name: "escnull", method: "REGISTER", uri: "sip:example.com", callID: "escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd", fromTag: "839923423", branch: "z9hG4bKkdjuw"},
		{name: "esc02", method: "RE%47IST%45R", uri: "sip:registrar.example.com", callID: "esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf", fromTag: "f232jadfj23", branch: "z9hG4bK209%fzsnel234"},
		{name: "lwsdisp", method: "OPTIONS", uri: "sip:user@example.com", callID: "lwsdisp.1234abcd@funky.example.com", fromTag: "323", branch: "z9hG4bKkdjuw"},
		{name: "longreq", method: "INVITE", uri: "sip:user@example.com", callID: "longreq.one" + long + "callid", fromTag: "12982424" + long},
		{name: "dblreq", method: "REGISTER", uri: "sip:example.com", callID: "dblreq.0ha0isndaksdj99sdfafnl3lk233412", fromTag: "43251j3j324", branch: "z9hG4bKkdjuw23492", defects: LongBody},
		{name: "semiuri", method: "OPTIONS", uri: "sip:user;par=u%40example.net@example.com", callID: "semiuri.0ha0isndaksdj", fromTag: "33242", branch: "z9hG4bKkdjuw"},
		{name: "transports", method: "OPTIONS", uri: "sip:user@example.com", callID: "transports.kijh4akdnaqjkwendsasfdj", fromTag: "323", branch: "z9hG4bKkdjuw"},
		{name: "mpart01", method: "MESSAGE", uri: "sip:kumiko@example.org", callID: "3d9485ad0c49859b@Zmx1ZmZ5LW1hYy0xNi5sb2NhbA..", fromTag: "2fb0dcc9", branch: "z9hG4bK-d87543-4dade06d0bdb11ee-1--d87543-"},
		{name: "unreason", method: "INVITE", status: "200", callID: "unreason.1234ksdfak3j2erwedfsASdf", fromTag: "11141343", toTag: "2229", branch: "z9hG4bK1324923"},
		{name: "noreason", method: "INVITE", status: "100", callID: "noreason.asndj203insdf99223ndf", fromTag: "39ansfi3", toTag: "902jndnke3", branch: "z9hG4bK2398ndaoe"},

		{name: "badinv01", method: "INVITE", uri: "sip:user@example.com", callID: "badinv01.0ha0isndaksdjasdf3234nas", fromTag: "134161461246"},
		{name: "clerr", method: "INVITE", uri: "sip:user@example.com", callID: "clerr.0ha0isndaksdjweiafasdk3", fromTag: "93942939o2", branch: "z9hG4bK-39234-23523", defects: ShortBody},
		{name: "ncl", method: "INVITE", uri: "sip:user@example.com", callID: "ncl.0ha0isndaksdj2193423r542w35", fromTag: "32394234", branch: "z9hG4bKkdjuw", defects: BadContentLength},
		{name: "scalar02", method: "REGISTER", uri: "sip:example.com", callID: "scalar02.23o0pd9vanlq3wnrlnewofjas9ui32", fromTag: "239232jh3", branch: "z9hG4bK342sdfoi3", defects: BadCSeq},
		{name: "scalarlg", method: "OPTIONS", status: "503", callID: "scalarlg.noase0of0234hn2qofoaf0232aewf2394r", fromTag: "2easdjfejw", branch: "z9hG4bKzzxdiwo34sw", defects: BadCSeq},
		{name: "quotbal", method: "INVITE", uri: "sip:user@example.com", callID: "quotbal.aksdj", fromTag: "93334", branch: "z9hG4bKkdjuw39234", defects: BadTo},
		{name: "ltgtruri", method: "INVITE", uri: "<sip:user@example.com>", callID: "ltgtruri.1@192.0.2.5", fromTag: "39291", defects: BadRequestURI},
		{name: "lwsruri", method: "INVITE", uri: "sip:user@example.com; lr", callID: "lwsruri.asdfasdoeoi2323-asdfwrn23-asd834rk423", fromTag: "231413434", toTag: "3xfe-9921883-z9f", branch: "z9hG4bKkdjuw2395", defects: BadRequestURI},
		{name: "lwsstart", method: "INVITE", uri: "sip:user@example.com", callID: "lwsstart.dfknq234oi243099adsdfnawe3@example.com", fromTag: "8814", branch: "z9hG4bKkdjuw3923"},
		{name: "trws", method: "OPTIONS", uri: "sip:remote-target@example.com", callID: "trws.oicu34958239neffasdhr2345r", fromTag: "329429089", branch: "z9hG4bK299342093"},
		{name: "escruri", method: "INVITE", uri: "sip:user@example.com?Route=%3Csip:example.com%3E", callID: "escruri.23940-asdfhj-aje3br-234q098w-fawerh2q-h4n5", fromTag: "341518", branch: "z9hG4bKkdjuw"},
		{name: "baddate", method: "INVITE", uri: "sip:user@example.com", callID: "baddate.239423mnsadf3j23lj42--sedfnm234", fromTag: "2234923", branch: "z9hG4bKkdjuw"},
		{name: "regbadct", method: "REGISTER", uri: "sip:example.com", callID: "regbadct.k345asrl3fdbv@10.0.0.1", fromTag: "998332", branch: "z9hG4bKkdjuw"},
		{name: "badaspec", method: "OPTIONS", uri: "sip:user@example.org", callID: "badaspec.sdf0234n2nds0a099u23h3hnnw009cdkne3", fromTag: "433423", branch: "z9hG4bKkdju43234"},
		{name: "baddn", method: "OPTIONS", uri: "sip:t.watson@example.org", callID: "baddn.31415@c.example.com", fromTag: "43", branch: "z9hG4bKkdjuw"},
		{name: "badvers"},
		{name: "mismatch01", method: "OPTIONS", uri: "sip:user@example.com", callID: "mismatch01.dj0234sxdfl3", fromTag: "34525", branch: "z9hG4bKkdjuw", defects: MethodMismatch},
		{name: "mismatch02", method: "NEWMETHOD", uri: "sip:user@example.com", callID: "mismatch02.dj0234sxdfl3", fromTag: "34525", branch: "z9hG4bKkdjuw", defects: MethodMismatch},
		{name: "bigcode", method: "INVITE", status: "4294967301", callID: "bigcode.asdof3uj203asdnf3429uasdhfas3ehjasdfas9i", fromTag: "39ansfi3", toTag: "902jndnke3", branch: "z9hG4bK2398ndaoe", defects: BadStatus},

		{name: "badbranch", method: "OPTIONS", uri: "sip:user@example.com", callID: "badbranch.sadonfo23i420jv0as0derf3j3n", fromTag: "33242", branch: "z9hG4bK"},
		{name: "insuf", method: "INVITE", uri: "sip:user@example.com", branch: "z9hG4bKkdj.insuf", defects: MissingCallID | MissingFrom | MissingTo},
		{name: "unkscm", method: "OPTIONS", uri: "nobodyKnowsThisScheme:totallyopaquecontent", callID: "unkscm.nasdfasser0q239nwsdfasdkl34", fromTag: "384", branch: "z9hG4bKkdjuw39234"},
		{name: "novelsc", method: "OPTIONS", uri: "soap.beep://192.0.2.103:3002", callID: "novelsc.asdfasser0q239nwsdfasdkl34", fromTag: "384", branch: "z9hG4bKkdjuw39234"},
		{name: "unksm2", method: "REGISTER", uri: "sip:example.com", callID: "unksm2.daksdj@hyphenated-host.example.com", fromTag: "3234233", branch: "z9hG4bKkdjuw"},
		{name: "bext01", method: "OPTIONS", uri: "sip:user@example.com", callID: "bext01.0ha0isndaksdj", fromTag: "242etr", branch: "z9hG4bKkdjuw"},
		{name: "invut", method: "INVITE", uri: "sip:user@example.com", callID: "invut.0ha0isndaksdjadsfij34n23d", fromTag: "8392034", branch: "z9hG4bKkdjuw"},
		{name: "regaut01", method: "REGISTER", uri: "sip:example.com", callID: "regaut01.0ha0isndaksdj", fromTag: "87321hj23128", branch: "z9hG4bKkdjuw"},
		{name: "multi01", method: "INVITE", uri: "sip:user@company.example.com", callID: "multi01.98asdh@192.0.2.1", fromTag: "3413415", branch: "z9hG4bKkdjuw", defects: DuplicateCallID | DuplicateCSeq | DuplicateFrom | DuplicateTo},
		{name: "mcl01", method: "OPTIONS", uri: "sip:user@example.com", callID: "mcl01.fhn2323orihawfdoa3o4r52o3irsdf", fromTag: "3923942", branch: "z9hG4bK293423", defects: DuplicateContentLength},
		{name: "bcast", method: "INVITE", status: "200", callID: "bcast.0384840201234ksdfak3j2erwedfsASdf", fromTag: "11141343", toTag: "2229", branch: "z9hG4bK1324923"},
		{name: "zeromf", method: "OPTIONS", uri: "sip:user@example.com", callID: "zeromf.jfasdlfnm2o2l43r5u0asdfas", fromTag: "3ghsd41", branch: "z9hG4bKkdjuw2349i"},
		{name: "cparam01", method: "REGISTER", uri: "sip:example.com", callID: "cparam01.70710@saturn.example.com", fromTag: "DkfVgjkrtMwaerKKpe", branch: "z9hG4bKkdjuw"},
		{name: "cparam02", method: "REGISTER", uri: "sip:example.com", callID: "cparam02.70710@saturn.example.com", fromTag: "838293", branch: "z9hG4bKkdjuw"},
		{name: "regescrt", method: "REGISTER", uri: "sip:example.com", callID: "regescrt.k345asrl3fdbv@192.0.2.1", fromTag: "8", branch: "z9hG4bKkdjuw"},
		{name: "sdp01", method: "INVITE", uri: "sip:user@example.com", callID: "sdp01.ndaksdj9342dasdd", fromTag: "234", branch: "z9hG4bKkdjuw"},

		{name: "inv2543", method: "INVITE", uri: "sip:UserB@example.com", callID: "inv2543.1717@ift.client.example.com"},
	}
	messages := torture(t)
	if len(messages) != len(tests) {
		t.Errorf("%d messages, %d cases", len(messages), len(tests))
	}
	var m Message
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			msg, ok := messages[tt.name]
			if !ok {
				t.Fatal("no message")
			}
			if err := m.Parse(msg); (err != nil) != (tt.method == "") {
				t.Fatal(err)
			}
			for _, f := range []struct {
				name, got, want string
			}{
				{"method", string(m.MethodName()), tt.method},
				{"Request-URI", string(m.RequestURI), tt.uri},
				{"status", string(m.Status), tt.status},
				{"Call-ID", string(m.CallID), tt.callID},
				{"From tag", string(m.From.Tag), tt.fromTag},
				{"To tag", string(m.To.Tag), tt.toTag},
				{"branch", string(m.Via.Branch), tt.branch},
				{"defects", m.Defects.String(), tt.defects.String()},
			} {
				if f.got != f.want {
					t.Errorf("%s: got %q, want %q", f.name, f.got, f.want)
				}
			}
		})
	}
}

// What the cases of RFC 4475 are made for beyond the columns.
func TestTortureDetails(t *testing.T) {
	messages := torture(t)
	header := func(name string) func(*Message) string {
		return func(m *Message) string {
			v, _ := m.Header(name)
			return string(v)
		}
	}
	tests := []struct {
		name, what string
		get        func(*Message) string
		want       string
	}{
		{"wsinv", "CSeq number", func(m *Message) string { return string(m.CSeqNumber) }, "0009"},
		{"wsinv", "display", func(m *Message) string { return string(m.From.Display()) }, `J Smith \\\"`},
		{"wsinv", "To URI", func(m *Message) string { return string(m.To.URI) }, "sip:vera@chair.example.com"},
		{"wsinv", "Via host", func(m *Message) string { return string(m.Via.Host) }, "192.0.2.2"},
		{"wsinv", "contact", func(m *Message) string { return string(m.Contact.URI) }, "sip:jsmith@example.com"},
		{"wsinv", "subject", header("Subject"), ""},
		{"wsinv", "fold", header("newfangledheader"), "newfangled value\r\n continued newfangled value"},
		{"intmeth", "display", func(m *Message) string { return string(m.From.Display()) }, "token1~` token2'+_ token3*%!.-"},
		{"esc02", "escaped name", header("C%6Fntact"), "<sip:alias2@host2.example.com>"},
		{"lwsdisp", "display", func(m *Message) string { return string(m.From.Display()) }, "caller"},
		{"dblreq", "rest", func(m *Message) string { return string(m.Body[:6]) }, "INVITE"},
		{"mpart01", "content type", func(m *Message) string { return string(m.ContentType) }, "multipart/mixed;boundary=7a9cbec02ceef655"},
		{"unreason", "reason", func(m *Message) string { return string(m.Reason) }, "= 2**3 * 5**2 но сто девяносто девять - простое"},
		{"noreason", "reason", func(m *Message) string { return string(m.Reason) }, ""},
		{"badinv01", "contact", func(m *Message) string { return string(m.Contact.URI) }, "sip:joe@example.org"},
		{"scalar02", "CSeq number", func(m *Message) string { return string(m.CSeqNumber) }, "36893488147419103232"},
		{"badaspec", "To URI", func(m *Message) string { return string(m.To.URI) }, "sip:t.watson@example.org"},
		{"baddn", "display", func(m *Message) string { return string(m.From.Display()) }, "Bell, Alexander"},
		{"unksm2", "To URI", func(m *Message) string { return string(m.To.URI) }, "isbn:2983792873"},
		{"cparam01", "contact", func(m *Message) string { return string(m.Contact.URI) }, "sip:+19725552222@gw1.example.net"},
		{"cparam02", "contact", func(m *Message) string { return string(m.Contact.URI) }, "sip:+19725552222@gw1.example.net;unknownparam"},
		{"regescrt", "contact", func(m *Message) string { return string(m.Contact.URI) }, "sip:user@example.com?Route=%3Csip:sip.example.com%3E"},
		{"inv2543", "From URI", func(m *Message) string { return string(m.From.URI) }, "sip:+13035551111@ift.client.example.net;user=phone"},
	}
	var m Message
	for _, tt := range tests {
		if err := m.Parse(messages[tt.name]); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := tt.get(&m); got != tt.want {
			t.Errorf("%s, %s: got %q, want %q", tt.name, tt.what, got, tt.want)
		}
	}
}

// torture reads testdata/torture.txt: "== name" lines, each followed by a message written with LF, where
// @space is a blank at the end of a line and @binary every byte there is.
func torture(t testing.TB) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile("testdata/torture.txt")
	if err != nil {
		t.Fatal(err)
	}
	var every [256]byte
	for i := range every {
		every[i] = byte(i)
	}
	messages := map[string][]byte{}
	for part := range bytes.SplitSeq(bytes.TrimSuffix(b[len("== "):], []byte("\n")), []byte("\n== ")) {
		name, msg, _ := strings.Cut(string(part)+"\n", "\n")
		m := bytes.ReplaceAll(crlf(msg), []byte("@space"), []byte(" "))
		messages[name] = bytes.ReplaceAll(m, []byte("@binary"), every[:])
	}
	return messages
}
