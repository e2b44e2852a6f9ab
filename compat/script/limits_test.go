package script_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
)

// TestRefused: what can't be run is refused with its line, its name and a remedy.
func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"\nt_relay();":                       "k.cfg:2: t_relay() can't be run outside the proxy; transactions live in the proxy",
		`append_hf("X: y\r\n");`:             "k.cfg:1: append_hf() can't be run outside the proxy; messages are traced as they came",
		`sl_send_reply("200", "OK");`:        "k.cfg:1: sl_send_reply() can't be run outside the proxy; the proxy answers",
		`if (is_methd("BYE")) drop;`:         "k.cfg:1: is_methd() is not known here; did you mean is_method?",
		`if ($du == "x") drop;`:              "k.cfg:1: $du has no value outside the proxy; the destination is chosen in the proxy; use $siptrace(dst_addr)",
		`if ($dlg_var(x) == "x") drop;`:      "k.cfg:1: $dlg_var has no value outside the proxy; dialogs live in the proxy",
		`if ($sht(a=>b) == "x") drop;`:       "k.cfg:1: $sht has no value outside the proxy; hash tables live in the proxy",
		`if ($siptrace(src_adr)=="x") drop;`: "k.cfg:1: $siptrace(src_adr) is not known; did you mean src_addr?",
		`xlog("$rmx\n");`:                    "k.cfg:1: $rmx is not known here; did you mean rm?",
		`xlog("100 $ \n");`:                  `k.cfg:1: $ without a name in "$ \n"; write $$ for a dollar sign`,
		`if (uri == myself) drop;`:           "k.cfg:1: myself is not known outside the proxy",
		`if (src_ip == myself) drop;`:        "k.cfg:1: myself is not known outside the proxy; use $siptrace(direction)",
		`if (@ruri.user == "x") drop;`:       "k.cfg:1: selects are not run here",
		`if ($sel(ruri.user) == "x") drop;`:  "k.cfg:1: selects are not run here; use a pseudo-variable, such as $rU for @ruri.user; @cfg_get.group.name is known",
		`if ($sel(cfg_get.a.b) == 1) drop;`:  "k.cfg:1: a.b is not set in this configuration; write a.b = value above",
		`if (@cfg_get.a.b == 1) drop;`:       "k.cfg:1: a.b is not set in this configuration",
		`$hdr(X) = "x";`:                     "k.cfg:1: $hdr(X) can't be assigned",
		`$ru = "sip:x@y";`:                   "k.cfg:1: $ru can't be assigned",
		`$avp($rm) = 1;`:                     "k.cfg:1: $avp($rm) has a name that changes",
		`$var(x) += 1;`:                      `k.cfg:1: unexpected "+"; Kamailio has neither += nor ++: write $var(x) = $var(x) + 1`,
		`$var(x) = 1`:                        "k.cfg:1: ; is missing after the assignment",
		"if (1) {\ndrop;\n":                  "k.cfg:1: block of event_route is never closed",
		"if (1 drop;":                        `k.cfg:1: parenthesis is not closed where "drop" stands`,
		"drop; }":                            `k.cfg:1: unexpected "}"`,
		"else drop;":                         "k.cfg:1: else without if",
		"while (1) { continue; }":            "k.cfg:1: continue is not known",
		`route(NOPE);`:                       "k.cfg:1: route[NOPE] is not there",
		`route($rm);`:                        "k.cfg:1: route() with a name that changes",
		`switch ($rm) { case $ru: drop; }`:   "k.cfg:1: a case wants a constant",
		`is_method("$rm");`:                  "k.cfg:1: \"$rm\" is no method",
		`is_method($rm);`:                    "k.cfg:1: argument 1 of is_method() is not a string constant",
		`setflag(32);`:                       "k.cfg:1: the flag of setflag() is not a number from 0 to 31",
		`setflag("5");`:                      "k.cfg:1: the flag of setflag() is not a number from 0 to 31",
		`keep_trace("t");`:                   `k.cfg:1: keep_trace() has another argument than "replies"; write keep_trace() or keep_trace("replies")`,
		`xlog("L_INF", "x");`:                `k.cfg:1: "L_INF" is no level; did you mean L_INFO?`,
		`sip_trace("10.0.0.1");`:             `k.cfg:1: argument 1 of sip_trace() is "10.0.0.1"; write "sip:host:port;transport=udp"`,
		`sip_trace("sip:a", "b", "x");`:      `k.cfg:1: argument 3 of sip_trace() is "x"; write "m" (message), "t" (transaction) or "d" (dialog)`,
		`sip_trace_mode("x");`:               "k.cfg:1: argument 1 of sip_trace_mode() is \"x\"",
		`sip_trace_msg("a","b","c","d");`:    "k.cfg:1: sip_trace_msg() has 4 arguments; write sip_trace_msg(",
		`is_in_subnet("$si", "10.0/8");`:     `k.cfg:1: "10.0/8" is no network`,
		`if ($rU =~ "(a)\1") drop;`:          `k.cfg:1: regular expression "(a)\\1": \1 is a back reference: write the alternatives out`,
		`if ($rU =~ "a{1,5000}") drop;`:      "k.cfg:1: regular expression \"a{1,5000}\": {1,5000} repeats more than 1000 times",
		`if ($rU =~ "[[=a=]]") drop;`:        "k.cfg:1: regular expression",
		`$var(x) = 4294967296;`:              "k.cfg:1: 4294967296 is not a number here; integers have 32 bits",
		`$var(x) = $(ci{s.nonsense});`:       "k.cfg:1: transformation {s.nonsense} is not run here",
		`$var(x) = $(ci{s.substr,1,-1});`:    "k.cfg:1: {s.substr,1,-1} is malformed",
		`$var(x) = $(avp(y)[x]);`:            `k.cfg:1: index "x" of $(avp(y)[x]) is neither`,
		`xlog("a" + $rm);`:                   "k.cfg:1: argument 1 of xlog() is not a string constant",
		`if ($rU == "x) drop;`:               "k.cfg:1: string is never closed",
		`if ($hdr(X == "x") drop;`:           "k.cfg:1:",
		`return "x";`:                        "k.cfg:1: a string is returned",
		`fooo;`:                              `k.cfg:1: unexpected "fooo"`,
		`lua_run("x");`:                      "k.cfg:1: lua_run() can't be run outside the proxy; KEMI is not run here",
		"if " + strings.Repeat("(", 200):     "k.cfg:1: nested more than 100 deep",
		strings.Repeat("if (1) ", 200):       "k.cfg:1: nested more than 100 deep",
		strings.Repeat("drop;", 20_000):      "k.cfg:1: the route has more than 20000 words",

		`switch ($rs) { case 200: drop; case "x": drop; }`: "k.cfg:1: numbers and strings are mixed in the cases of a switch",

		"$var(x) = " + strings.Repeat("$_s(", 5000) + "a" + strings.Repeat(")", 5000) + ";": "k.cfg:1: $_s(...) within each other more than 10 deep",

		"$var(x) = " + strings.Repeat("!", 200) + "1;": "k.cfg:1: nested more than 100 deep",
	} {
		_, err := try(text, script.Options{})
		var e *kamcfg.Error
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60s\n got %v\nwant %s", text, err, want)
		}
	}
}

// TestBombs: regular expressions whose cost would explode elsewhere are refused
// or run in linear time.
func TestBombs(t *testing.T) {
	text := bytes.Repeat([]byte("a"), 60_000)
	raw := append(bytes.Clone(options), text...)
	sip, rec := parse(t, raw)
	for _, re := range []string{`(a*)*b`, `(a+)+$`, `(a|aa)+b`, `(.*a){20}b`, `((a{1,100}){1,100}){1,100}`, strings.Repeat("(a?)", 200) + strings.Repeat("a", 200), strings.Repeat("a?", 5000)} {
		p, err := try(`if ($rb =~ "`+re+`") $avp(x) = 1;`, script.Options{})
		if err != nil {
			t.Logf("%.30s: %.120v", re, err)
			continue
		}
		var m script.Message
		res := p.Run(&m, sip, rec)
		if res.Dropped || res.Faults.Any() {
			t.Errorf("%.30s: %+v", re, res)
		}
	}

	// What a match costs is counted: 100 rounds over 60,000 bytes are too many steps.
	p := compile(t, `while (1 == 1) { if ($rb =~ "[bc]") $avp(x) = 1; }`, script.Options{})
	var m script.Message
	if res := p.Run(&m, sip, rec); res.Faults[script.FaultSteps] != 1 {
		t.Errorf("%+v", res)
	}
}

// TestBounds: what grows beyond its bound is refused and counted, and the message is kept.
func TestBounds(t *testing.T) {
	cfg, err := kamcfg.ParseBytes("k.cfg", []byte("route[DEEP] { route(DEEP); } route[LOOP] { $avp(n) = 1; while (1 == 1) { while (1 == 1) { route(LOOP); } } }"), kamcfg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sip, rec := parse(t, append(bytes.Clone(options), bytes.Repeat([]byte("x"), 20_000)...))
	for text, want := range map[string]struct {
		fault  script.Fault
		n      uint32
		values int
	}{
		`$avp(x) = $mb; $avp(x) = "short";`: {script.FaultValue, 1, 1},
		`$var(x) = $mb; $avp(x) = $var(x);`: {script.FaultValue, 1, 1},
		`while (1 == 1) { $avp(x) = "v"; }`: {script.FaultLoop, 1, 64},
		`$var(x) = "0123456789"; while (1 == 1) { $var(x) = $var(x) + $var(x); } $avp(x) = $(var(x){s.len});`: {script.FaultMemory, 0, 1},
		`while (1 == 1) { $var(x) = $mb + $mb; } $avp(x) = 1;`:                                                {script.FaultMemory, 0, 1},
		`while (1 == 1) { xlog("x"); } $avp(x) = 1;`:                                                          {script.FaultActions, 36, 1},
		`route(DEEP); $avp(x) = 1;`:                                                                           {script.FaultDepth, 1, 1},
		`while (1 == 1) { while (1 == 1) { while (1 == 1) { while (1 == 1) { $avp(x) = 1; } } } }`:            {script.FaultSteps, 1, 64},
		`route(LOOP);`: {script.FaultSteps, 1, 0},
		`while (1 == 1) { while (1 == 1) { if (search("x.*y.*z$")) drop; } }`: {script.FaultSteps, 1, 0},
		`$avp(x) = 5 / $var(zero); $avp(x) = 5 mod $var(zero);`:               {script.FaultDivide, 2, 0},
		`$var(r) = "(" + "a"; if ("a" =~ $var(r)) drop; $avp(x) = 1;`:         {script.FaultRegex, 1, 1},
		`sip_trace($avp(nope)); sip_trace("$rm"); sip_trace_mode($rm);`:       {script.FaultArgument, 3, 0},
	} {
		p, err := try(text, script.Options{Routes: cfg.Routes})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var m script.Message
		for range 2 { // the second run must not suffer from the first
			res := p.Run(&m, sip, rec)
			if got := res.Faults[want.fault]; got == 0 || want.n > 0 && got != want.n {
				t.Errorf("%s: %s counted %d times, want %d", text, want.fault, got, want.n)
			}
			if got := len(m.Values(p.AVP("$avp(x)"), nil)); got != want.values || res.Dropped {
				t.Errorf("%s: got %d values, dropped %v, want %d and kept", text, got, res.Dropped, want.values)
			}
		}
	}
}

// TestDynamicRegexes: the cache of expressions made at run time is bounded.
func TestDynamicRegexes(t *testing.T) {
	p := compile(t, `if ("cid7@host" =~ "^" + $ci + "$") drop;`, script.Options{})
	var m script.Message
	for i := range 500 {
		sip, rec := parse(t, bytes.Replace(options, []byte("cid1@"), fmt.Appendf(nil, "cid%d@", i), 1))
		if got := p.Run(&m, sip, rec).Dropped; got != (i == 7) {
			t.Fatalf("%d: got %v", i, got)
		}
	}
}
