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

	"siptraced/compat/kamcfg"
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

// realKamailio runs route[BODY] in event_route[siptrace:msg] of a real Kamailio, for a
// request and the reply to it, and gives the lines that xlog() printed for each.
func realKamailio(t *testing.T, src int, routes string) (request, reply []string) {
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
}
`
	k := servers.StartKamailio(t, cfg, fmt.Sprintf("udp:127.0.0.1:%d", port))
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: src}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 { // with one worker the first is done when the second begins
		if _, err := conn.Write(packet(src, options)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); strings.Count(k.Stderr(), "<script>: BEGIN 1") < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) || !k.Running() {
			t.Fatalf("no answer from Kamailio:\n%s", k.Tail(20))
		}
	}
	k.Stop(t)
	var got [3][]string
	which, runs := 0, 0
	for _, l := range strings.Split(k.Stderr(), "\n") {
		_, l, ok := strings.Cut(l, "ERROR: <script>: ")
		switch {
		case !ok:
		case strings.HasPrefix(l, "BEGIN "):
			which, _ = strconv.Atoi(l[6:])
			runs++
		case runs <= 2:
			got[which] = append(got[which], strings.NewReplacer(strconv.Itoa(port), "PROXY", strconv.Itoa(src), "CLIENT").Replace(l))
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
	request, reply := realKamailio(t, src, strings.ReplaceAll("route[BODY] {\n"+body.String()+"}\n", "17110", strconv.Itoa(src)))
	if len(request) != len(list) || len(reply) != len(list) {
		t.Fatalf("Kamailio answered %d and %d of %d conditions", len(request), len(reply), len(list))
	}
	var m script.Message
	for i, c := range list {
		p, err := try(setup+"if ("+c+") drop;", script.Options{})
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

// TestScripts runs whole routes in both and compares what xlog() prints.
func TestScripts(t *testing.T) {
	for _, name := range []string{"avp", "flow", "message", "selects", "transform"} {
		t.Run(name, func(t *testing.T) {
			src := servers.FreePort(t)
			b, err := os.ReadFile("testdata/" + name + ".cfg")
			if err != nil {
				t.Fatal(err)
			}
			request, reply := realKamailio(t, src, string(b))
			cfg, err := kamcfg.ParseBytes("k.cfg", append(b, "event_route[siptrace:msg] {\n\troute(BODY);\n}\n"...), kamcfg.Options{})
			if err != nil {
				t.Fatal(err)
			}
			ev, _ := cfg.EventRoute("siptrace:msg")
			p, err := script.Compile(ev, script.Options{Routes: cfg.Routes, Settings: cfg.Settings()})
			if err != nil {
				t.Fatal(err)
			}
			var m script.Message
			for what, c := range map[string]struct {
				raw  []byte
				want []string
			}{"request": {options, request}, "reply": {ok200, reply}} {
				sip, rec := parse(t, c.raw)
				res := p.Run(&m, sip, rec)
				var got []string
				for _, a := range res.Actions {
					got = append(got, strings.NewReplacer("17060", "PROXY", "17110", "CLIENT", "\n", "").Replace(string(a.Text)))
				}
				if len(got) != len(c.want) {
					t.Errorf("%s: got %d lines, Kamailio printed %d", what, len(got), len(c.want))
				}
				for i := range min(len(got), len(c.want)) {
					if got[i] != c.want[i] {
						t.Errorf("%s: got  %s\nKamailio has %s", what, got[i], c.want[i])
					}
				}
				t.Logf("%s: %d lines", what, len(got))
			}
		})
	}
}
