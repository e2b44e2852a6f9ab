package script_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"siptraced/compat/script"
	"siptraced/tests/servers"
)

func lines(tb testing.TB, file string) []string {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

const setup = `$avp(q)="01"; $avp(two)=2; $var(neg)="-1"; $var(n1)=-1; $var(five)=5; $var(emp)="";
`

// realKamailio runs body in event_route[siptrace:msg] of a real Kamailio, for a
// request and the reply to it, and gives the lines that xlog() printed for each.
func realKamailio(t *testing.T, src int, body, routes string) (request, reply []string) {
	t.Helper()
	port := servers.FreePort(t)
	cfg := fmt.Sprintf(`#!KAMAILIO
debug=0
log_stderror=yes
children=1
disable_tcp=yes
auto_aliases=no
dns=no
rev_dns=no
listen=udp:127.0.0.1:%d
`, port)
	for _, m := range strings.Fields("kex corex tm tmx sl rr pv maxfwd textops textopsx siputils xlog ipops siptrace") {
		cfg += "loadmodule \"" + m + ".so\"\n"
	}
	cfg += `modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:9")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", 3)
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 1)
` + routes + `
request_route { sl_send_reply("200", "OK"); }
event_route[siptrace:msg] {
xlog("L_ERR", "BEGIN $mt\n");
route(BODY);
xlog("L_ERR", "END\n");
}
route[BODY] {
` + body + "\n}\n"
	k := servers.StartKamailio(t, cfg, fmt.Sprintf("udp:127.0.0.1:%d", port))
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: src}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(packet(src, options)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); strings.Count(k.Stderr(), "<script>: END") < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) || !k.Running() {
			t.Fatalf("no answer from Kamailio:\n%s", k.Tail(20))
		}
	}
	k.Stop(t)
	var got [3][]string
	which := 0
	for _, l := range strings.Split(k.Stderr(), "\n") {
		_, l, ok := strings.Cut(l, "ERROR: <script>: ")
		switch {
		case !ok || l == "END":
		case strings.HasPrefix(l, "BEGIN "):
			which, _ = strconv.Atoi(l[6:])
		default:
			got[which] = append(got[which], l)
		}
	}
	return got[1], got[2]
}

// TestConditions compares every condition of testdata/conditions.txt with what
// Kamailio makes of it, in a request and in a reply.
func TestConditions(t *testing.T) {
	src := servers.FreePort(t)
	list := lines(t, "testdata/conditions.txt")
	var body strings.Builder
	body.WriteString(setup)
	for i, c := range list {
		fmt.Fprintf(&body, "if (%s) { xlog(\"L_ERR\", \"%d true\\n\"); } else { xlog(\"L_ERR\", \"%d false\\n\"); }\n", c, i, i)
	}
	request, reply := realKamailio(t, src, strings.ReplaceAll(body.String(), "17110", strconv.Itoa(src)), "")
	if len(request) != len(list) || len(reply) != len(list) {
		t.Fatalf("Kamailio answered %d and %d of %d conditions", len(request), len(reply), len(list))
	}
	var m script.Message
	for i, c := range list {
		p, err := script.Compile(route(setup+"if ("+c+") drop;"), script.Options{})
		if err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		for what, raw := range map[string][]byte{"request": options, "reply": ok200} {
			want := request[i]
			if what == "reply" {
				want = reply[i]
			}
			sip, rec := parse(t, raw)
			if got := fmt.Sprintf("%d %v", i, p.Run(&m, sip, rec).Dropped); got != want {
				t.Errorf("%s: %s: got %s, Kamailio has %s", what, c, got, want)
			}
		}
	}
	t.Logf("%d conditions, each in a request and in a reply", len(list))
}

// packet puts the port that a test sends from into a message.
func packet(src int, raw []byte) []byte {
	return bytes.ReplaceAll(raw, []byte("17110"), []byte(strconv.Itoa(src)))
}
