package script_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
	"siptraced/compat/siptrace"
)

// TestAVPs: names as parameters have them, values last set first.
func TestAVPs(t *testing.T) {
	p := compile(t, `if ($fU == "alice") { $avp(s:tu) = "user-a"; $avp(tu) = "user-b"; $avp(s:tu) = 7; } $avp(i:6843) = $fu; $avp(6844) = "digits";`, script.Options{})
	sip, rec := parse(t, options)
	var m script.Message
	for range 2 {
		p.Run(&m, sip, rec)
		for name, want := range map[string]string{
			"$avp(s:tu)": "[7 user-b user-a]", "$avp(tu)": "[7 user-b user-a]", "$tu": "[7 user-b user-a]",
			"6843": "[sip:alice@atlanta.example:5062;p=q]", "$avp(i:6843)": "[sip:alice@atlanta.example:5062;p=q]", "$avp(6843)": "[]",
			"$avp(s:6844)": "[digits]", "$avp(other)": "[]", "": "[]", "$avp()": "[]",
		} {
			if got := fmt.Sprintf("%s", m.Values(p.AVP(name), nil)); got != want {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		}
	}
}

// TestActions: what the functions ask for.
func TestActions(t *testing.T) {
	p := compile(t, `sip_trace();
sip_trace("sip:192.0.2.1:9060;transport=tcp");
sip_trace("sip:192.0.2.1:9060", "$ci-abc", "Dialog");
sip_trace_mode("t");
sip_trace_msg("$rb", "udp:127.0.0.1:5062", "tls:[::1]:5061", "sip:192.0.2.1:9060", "");
hlog("log of $rm, $avp(none)");
hlog("$hdr(X-A)id", "with an id"); hlog($hdr(Nope), "no id");
xlog("L_WARN", "w $ua\n"); xlog("L_NOTICE", "not at this level\n"); xerr("e"); log(-1, "core $rm"); log(1, "higher");
setflag(22); setflag(0); resetflag(0);
if (is_method("OPTIONS")) drop();
xlog("never");`, script.Options{})
	sip, rec := parse(t, options)
	var m script.Message
	res := p.Run(&m, sip, rec)
	var got []string
	for _, a := range res.Actions {
		s := fmt.Sprintf("%d %s %q %q", a.Kind, a.Pos, a.Address, a.Text)
		if a.CorrelationID != nil {
			s += fmt.Sprintf(" id=%q", a.CorrelationID)
		}
		if a.Mode != 0 {
			s += " mode=" + string(rune(a.Mode))
		}
		if a.From != nil {
			s += fmt.Sprintf(" %s>%s", a.From, a.To)
		}
		if a.Kind == script.Log {
			s += fmt.Sprintf(" level=%d", a.Level)
		}
		got = append(got, s)
	}
	want := []string{
		`1 k.cfg:1 "" ""`,
		`1 k.cfg:2 "sip:192.0.2.1:9060;transport=tcp" ""`,
		`1 k.cfg:3 "sip:192.0.2.1:9060" "" id="cid1@host-abc" mode=d`,
		`1 k.cfg:4 "" "" mode=t`,
		`2 k.cfg:5 "sip:192.0.2.1:9060" "hello" id="" udp:127.0.0.1:5062>tls:[::1]:5061`,
		`3 k.cfg:6 "" "log of OPTIONS, <null>"`,
		`3 k.cfg:7 "" "with an id" id="one id"`,
		`4 k.cfg:8 "" "w Test UA/1.0\n" level=0`,
		`4 k.cfg:8 "" "e" level=-1`,
		`4 k.cfg:8 "" "core $rm" level=-1`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !res.Dropped || res.Flags != 1<<22 || res.Faults[script.FaultArgument] != 1 {
		t.Errorf("got %v %x %v", res.Dropped, res.Flags, res.Faults)
	}
}

// TestEnds: addresses in every notation, those that came as text too.
func TestEnds(t *testing.T) {
	p := compile(t, `xlog("$si $sp $Ri $Rp $pr $proto|$siptrace(src_addr) $siptrace(src_host) $siptrace(src_hostip) $siptrace(src_port) $siptrace(src_proto)|$siptrace(dst_addr) $siptrace(dst_host) $siptrace(dst_hostip) $siptrace(dst_port) $siptrace(dst_proto)|$siptrace(direction)");
if (src_ip == 2001:db8::/32) xlog("net6"); if (src_ip == [2001:db8::1]) xlog("host6"); if (dst_ip != 10.0.0.0/8) xlog("not ten"); if (src_port == 5061 && dst_port > 5000) xlog("ports"); if (proto == TLS) xlog("tls"); if (af == INET6) xlog("six"); if (is_in_subnet("$si", "10.0.0.0/8, 2001:db8::/32")) xlog("subnet"); if ($TV(sn) == "1795267924.123456" && $TS == 1795267924 && $TV(u) == 123456) xlog("time");`, script.Options{})
	sip, rec := parse(t, options)
	var m script.Message
	for _, tt := range []struct {
		from, to siptrace.Endpoint
		dir      string
		want     string
	}{
		{
			siptrace.Endpoint{Proto: siptrace.TLS, Addr: netip.MustParseAddrPort("[2001:db8::1]:5061")},
			siptrace.Endpoint{Proto: siptrace.TLS, Addr: netip.MustParseAddrPort("[2001:db8::2]:5061")},
			siptrace.Out,
			"2001:db8::1 5061 2001:db8::2 5061 tls tls|tls:[2001:db8::1]:5061 [2001:db8::1] 2001:db8::1 5061 tls|tls:[2001:db8::2]:5061 [2001:db8::2] 2001:db8::2 5061 tls|out net6 host6 not ten ports tls six subnet time",
		},
		{
			siptrace.TextEndpoint("udp:10.1.2.3:5060"),
			siptrace.TextEndpoint("hello"),
			siptrace.In,
			"10.1.2.3 5060 <null> 0 udp udp|udp:10.1.2.3:5060 10.1.2.3 10.1.2.3 5060 udp|hello <null> <null> 0 any|in not ten subnet time",
		},
		{
			siptrace.Endpoint{Proto: siptrace.UDP},
			siptrace.Endpoint{Proto: siptrace.UDP},
			siptrace.In,
			"<null> 0 <null> 0 any any|any:255.255.255.255:5060 <null> <null> 0 any|any:255.255.255.255:5060 <null> <null> 0 any|in not ten time",
		},
	} {
		rec.From, rec.To, rec.Direction = tt.from, tt.to, tt.dir
		var got []string
		for _, a := range p.Run(&m, sip, rec).Actions {
			got = append(got, string(a.Text))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("got  %s\nwant %s", s, tt.want)
		}
	}
}

// TestDrop: the route of a recorded run, with what Kamailio logged there.
func TestDrop(t *testing.T) {
	p := compile(t, `
	xlog("L_WARN", "EVR src=$siptrace(src_addr) dst=$siptrace(dst_addr) sh=$siptrace(src_host) shi=$siptrace(src_hostip) sp=$siptrace(src_port) spr=$siptrace(src_proto)\n");
	if (is_method("REGISTER")) drop();
`, script.Options{})
	var m script.Message
	for method, dropped := range map[string]bool{"REGISTER": true, "OPTIONS": false} {
		for _, raw := range [][]byte{options, ok200} {
			sip, rec := parse(t, bytes.ReplaceAll(raw, []byte("OPTIONS"), []byte(method)))
			want := "EVR src=udp:127.0.0.1:17110 dst=udp:127.0.0.1:17060 sh=127.0.0.1 shi=127.0.0.1 sp=17110 spr=udp\n"
			if !sip.IsRequest {
				want = "EVR src=udp:127.0.0.1:17060 dst=udp:127.0.0.1:17110 sh=127.0.0.1 shi=127.0.0.1 sp=17060 spr=udp\n"
			}
			res := p.Run(&m, sip, rec)
			if res.Dropped != dropped || len(res.Actions) != 1 || string(res.Actions[0].Text) != want {
				t.Errorf("%s, request %v: got %v %+v", method, sip.IsRequest, res.Dropped, res.Actions)
			}
		}
	}
}

// TestTransform: as Kamailio 5.6.3 has them in #!substdef.
func TestTransform(t *testing.T) {
	for _, tt := range [][3]string{
		{"q", "{s.len}", "1"},
		{"q", "{s.toupper}", "Q"},
		{"q", "{s.replace,q,z}", "z"},
		{"q", "{s.select,0,q}", ""},
		{"q", "{s.substr,5,1}", ""},
		{"5.6.3", "{s.substr,0,1}", "5"},
		{"5.6.3", "{s.select,1,.}", "6"},
		{"5.6.3", "{s.rm,.}", "563"},
		{"5.6.3", "{s.replace,.,_}{s.len}", "5"},
	} {
		if got, err := script.Transform(tt[0], tt[1]); err != nil || got != tt[2] {
			t.Errorf("%s of %s: got %q, %v, want %q", tt[1], tt[0], got, err, tt[2])
		}
	}
	if _, err := script.Transform("q", "{s.nonsense}"); err == nil || !strings.Contains(err.Error(), "{s.nonsense} is not run here") {
		t.Errorf("got %v", err)
	}
}

// TestUnresolved: what only Kamailio knows can't be compared here.
func TestUnresolved(t *testing.T) {
	const defs = "#!substdef \"!ADDR!$env(NOSUCH)!g\"\nown.addr = ADDR\n"
	for src, want := range map[string]string{
		`if ($si == "ADDR") drop;`:          "k.cfg:3: $env(NOSUCH) has no value here (k.cfg:1); set the environment variable",
		`if ($si == ADDR) drop;`:            "k.cfg:3: $env(NOSUCH) has no value here (k.cfg:1)",
		`if ($sel(cfg_get.own.addr)) drop;`: "k.cfg:3: own.addr hangs on a variable: k.cfg:1: $env(NOSUCH) has no value here",
	} {
		cfg, err := kamcfg.ParseBytes("k.cfg", []byte(defs+"event_route[siptrace:msg] { "+src+" }"), kamcfg.Options{Env: func(string) (string, bool) { return "", false }})
		if err != nil {
			t.Fatal(err)
		}
		r, _ := cfg.EventRoute("siptrace:msg")
		if _, err := script.Compile(r, script.Options{Settings: cfg.Settings()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", src, err, want)
		}
	}
}

// TestConfig: a whole kamailio.cfg with defines, includes and routes.
func TestConfig(t *testing.T) {
	files := map[string]string{
		"k.cfg": "#!define SCANNER \"friendly\"\n#!ifdef NOPE\nbroken\n#!endif\nroute[QUIET] {\n\tif (is_method(\"OPTIONS\")) return 1;\n\treturn -1;\n}\n" +
			"event_route[siptrace:msg] {\n\t# a comment\n\tinclude_file \"rules.cfg\"\n\tif ($ua =~ SCANNER) drop; /* another */\n\tif (route(QUIET)) {\n\t\tdrop();\n\t}\n}\n",
		"rules.cfg": "if ($hdr(X-A) == \"one\"\n\t|| $def(LEVEL) == \"2\")\n\t$avp(s:tu) = $fU + \"@\" + $fd;\n",
	}
	cfg, err := kamcfg.Parse("k.cfg", kamcfg.Options{CommandLine: kamcfg.CommandLine{Defines: []string{"LEVEL=2"}}, ReadFile: func(name string) ([]byte, error) { return []byte(files[name]), nil }})
	if err != nil {
		t.Fatal(err)
	}
	ev, _ := cfg.EventRoute("siptrace:msg")
	p, err := script.Compile(ev, script.Options{Routes: cfg.Routes, Defines: cfg.Defines})
	if err != nil {
		t.Fatal(err)
	}
	want := `event_route[siptrace:msg] {
     1      if (($hdr(X-A) == "one") || ($def(LEVEL) == "2")) {
     3          $avp(s:tu) = ($fU + "@") + $fd;
            }
    12      if ($ua =~ "friendly") {
    12          drop;
            }
    13      if (route("QUIET")) {
    14          drop;
            }
}
route[QUIET] {
     6      if (is_method("OPTIONS")) {
     6          return 1;
            }
     7      return -1;
}
`
	if got := p.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	sip, rec := parse(t, options)
	var m script.Message
	res, list := p.Explain(&m, sip, rec)
	var got []string
	for _, e := range list {
		got = append(got, e.String())
	}
	wantLines := []string{
		`rules.cfg:1: if (($hdr(X-A) == "one") || ($def(LEVEL) == "2")) true`,
		`rules.cfg:3: $avp(s:tu) = ($fU + "@") + $fd = "alice@atlanta.example"`,
		`k.cfg:12: if ($ua =~ "friendly") false`,
		`k.cfg:6: if (is_method("OPTIONS")) true`,
		`k.cfg:6: return 1 = 1`,
		`k.cfg:13: if (route("QUIET")) true`,
		`k.cfg:14: drop`,
	}
	if strings.Join(got, "\n") != strings.Join(wantLines, "\n") || !res.Dropped {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wantLines, "\n"))
	}
	if res, list := p.Run(&m, sip, rec), m; !res.Dropped || list.SIP != sip {
		t.Error("a run after an explained one differs")
	}
}

// TestSharing: one program, many workers.
func TestSharing(t *testing.T) {
	p := compile(t, twenty, script.Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var m script.Message
			for i := range 500 {
				raw := invite
				if i%2 == 1 {
					raw = options
				}
				sip, rec := parse(t, raw)
				p.Run(&m, sip, rec)
				if got := len(m.Values(p.AVP("$avp(tu)"), nil)); got != 1-i%2 {
					t.Errorf("got %d values", got)
				}
			}
		})
	}
	wg.Wait()
}

// TestReuse: a Message goes from one program to another.
func TestReuse(t *testing.T) {
	a := compile(t, `$avp(x) = "a"; $avp(y) = $hdr(X-A);`, script.Options{})
	b := compile(t, `if ($hdr(Call-ID) == "cid1@host" && $hdr(i) == $ci) drop;`, script.Options{})
	sip, rec := parse(t, options)
	var m script.Message
	for range 3 {
		if a.Run(&m, sip, rec).Dropped || !b.Run(&m, sip, rec).Dropped {
			t.Fatal("a Message does not survive a change of program")
		}
	}
}

// TestDefects: $siptraced(defects) names what is wrong with a message.
func TestDefects(t *testing.T) {
	p := compile(t, `if ($siptraced(defects) =~ "(^|,)short_body(,|$)") drop; if ($siptraced(defects) == $null) setflag(1);`, script.Options{})
	var m script.Message
	whole, rec := parse(t, options)
	if res := p.Run(&m, whole, rec); res.Dropped || res.Flags != 1<<1 {
		t.Errorf("a message without defects: %+v", res)
	}
	cut, rec := parse(t, options[:len(options)-1])
	if res := p.Run(&m, cut, rec); !res.Dropped {
		t.Errorf("a message with %v: %+v", cut.Defects, res)
	}
	if n := testing.AllocsPerRun(100, func() { p.Run(&m, cut, rec) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, err := try(`if ($siptraced(x)) drop;`, script.Options{}); err == nil || !strings.Contains(err.Error(), "there is $siptraced(defects)") {
		t.Error(err)
	}
}
