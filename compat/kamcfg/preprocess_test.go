package kamcfg

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// preprocessFacts is a table of facts: want is what "kamailio -c" of 5.6.3
// printed as its aliases, err where it refused the snippet. Where we differ on
// purpose, why is said in differs, and the row has our answer.
type preprocessFact struct{ name, src, want, err, differs string }

var preprocessFacts = []preprocessFact{
	// Comments.
	{"line comments", "alias=a#x\nalias=b//x\n# /*\n// /*\nalias=c", "a b c", "", ""},
	{"block comments nest", "/* a /* b */ alias=x */ alias=y", "y", "", ""},
	{"block comment ends anywhere", "/* a # */ alias=x", "x", "", ""},
	{"quote in a comment", "/* \" */ alias=x // \"\n", "x", "", ""},
	{"block comment left open", "alias=x /* a", "", "comment is never closed", "Kamailio logs it and starts"},
	{"directives within comments", "/*\n#!define X q\n*/\n// #!define X q\n# #!define X q\n##!define X q\n//!define X q\nalias=X", "X", "", ""},
	{"modes are comments", "#!KAMAILIO\n#!SER\n#!OPENSER\n#!ALL\n#!/usr/sbin/kamailio -f\nalias=x", "x", "", ""},
	{"unknown directive is a comment", "#!foo alias=y\n#!undef X\n#! define X y\nalias=X", "X", "", ""},
	{"!! with an unknown word", "!!foo\nalias=x", "", `unexpected "!"`, ""},
	{"bytes outside ASCII are ignored", "\xef\xbb\xbf\xa0alias=x\x00\x0c", "x", "", ""},

	// Strings.
	{"escapes", `alias="a\"b" alias="c\\d" alias="e\x41f" alias="g\101h" alias="i\tj|k\ql" alias="m\'n"`, "a\"b c\\d eAf gAh i\tj|k\\ql m\\'n", "", ""},
	{"escapes, odd ones", `alias="A\aB\bC\rD\vE\fF\eG\x4I\777J\$K\xZZL\x414M" alias="A\1B\12C\1234D\9"`, "A\aB\\bC\rD\\vE\\fF\\eG\x04I\xffJ\\$K\\xZZLA4M A\\1B\nCS4D\\9", "", ""},
	{"escaped line end", "alias=\"o\\\np\" alias=\"q\\\r\nr\"", "op q\\\r\nr", "", ""},
	{"single quotes have no escapes", `alias='a"b' alias='c\\d' alias='e\x41' alias='m\'`, `a"b c\\d e\x41 m\`, "", ""},
	{"string over two lines", "alias=\"a\nb\" alias='c\nd'", "a\nb c\nd", "", ""},
	{"double quotes join", "alias=\"a\" \"b\"\n\t\"c\"", "abc", "", ""},
	{"others don't", "alias='a' 'b' alias=\"c\" 'd' alias=\"e\" /* */ \"f\" alias=\"g\" # x\n\"h\"", "a b c d e f g h", "", ""},
	{"a directive between", "alias=\"a\"\n#!define X q\n \"c\"", "a c", "", ""},
	{"string left open", "alias=\"a", "", "string is never closed", ""},

	// Defines.
	{"define", "#!define X \"a\"\n#!def Y \"b\"\n!!define Z \"c\"\n  #!define\tW\t\"d\"  \nalias=X alias=Y alias=Z alias=W", "a b c d", "", ""},
	{"define after other text", "alias=q #!define X a\nalias=X", "q a", "", ""},
	{"define of a define", "#!define X Y\n#!define Y q\nalias=X", "q", "", ""},
	{"define in pieces", "#!define X foo \\\n bar \\\n baz\nalias=X", "foo bar baz", "", ""},
	{"continuation takes any line", "#!define X b \\\nalias=q\nalias=X", "b q", "", ""},
	{"continuation in a string", "#!define X \"a\\\nb\"\nalias=X", "ab", "", ""},
	{"continuation with CR LF", "#!define X \"b\" \\\r\n\"c\"\r\nalias=X\r\n", "", "doesn't continue the line", "Kamailio ends the line there"},
	{"CR LF", "#!define X a\r\n#!ifdef X\r\nalias=X\r\n#!else\r\nalias=n\r\n#!endif\r\n", "a", "", ""},
	{"comment in a define", "#!define X \"b\" # c\n#!define Y d /* e */\nalias=X alias=q\nalias=Y alias=z", "b d z", "", ""},
	{"hash in a string of a define", "#!define X \"a#b\"\nalias=X", "a#b", "", ""},
	{"quote left open in a define", "#!define X \"a\nalias=X\"", "a", "", ""},
	{"strings join across a define", "#!define X \"b\"\nalias=X \"a\" alias=\"c\" X", "ba c b", "", ""},
	{"define without value is nothing", "#!define X\nalias=a X\nX alias=b\nKAMAILIO_5 alias=c", "a b c", "", ""},
	{"only whole words", "#!define X foo\nalias=XX alias=X.y alias=\"X\" alias=aX", "XX foo.y X aX", "", ""},
	{"keywords stay", "#!define listen q\nalias=x\nlisten=udp:127.0.0.1:5060", "x", "", ""},
	{"define twice", "#!define X a\n#!define X a", "", ":2: X is already defined", ""},
	{"redefine", "#!define X a\n#!redefine X b\nalias=X\n#!redef X c\nalias=X", "b c", "", ""},
	{"trydef", "#!define X a\n#!trydef X b\n#!trydefine Y c\nalias=X alias=Y", "a c", "", ""},
	{"trydef after a define without value", "#!trydef X\n#!trydef X q\nalias=a X", "a", "", ""},
	{"define with a hyphen", "#!define X-Y a", "", "#!define needs a name", ""},
	{"define with a digit first", "#!define 1X a", "", "#!define needs a name", "Kamailio defines X"},
	{"define of itself", "#!define X X\nalias=X", "", "define X contains itself", "Kamailio hangs"},
	{"define as part of a statement", "#!define EQ =\n#!define C alias\nC EQ x", "x", "", ""},
	{"include in a define", "#!define I include_file \"a.inc\"\nI\nalias=z", "inc-a z", "", ""},

	// Conditions.
	{"ifdef", "#!define A\n#!ifdef A\nalias=y\n#!else\nalias=n\n#!endif\n", "y", "", ""},
	{"ifndef", "#!ifndef A\nalias=y\n#!else\nalias=n\n#!endif\n", "y", "", ""},
	{"nested", "#!define A\n#!ifdef A\n#!ifdef B\nalias=a\n#!else\nalias=b\n#!endif\nalias=c\n#!else\n#!ifdef A\nalias=d\n#!else\nalias=e\n#!endif\n#!endif\n", "b c", "", ""},
	{"with !!", "!!ifdef A\nalias=q\n!!else\nalias=r\n!!endif\n", "r", "", ""},
	{"space", "  #!ifdef    A   \nalias=q\n#!endif   \nalias=r", "r", "", ""},
	{"text after the name is ignored", "#!define A\n#!ifdef A || B # foo\nalias=y\n#!endif\n", "y", "", ""},
	{"text after else makes it a comment", "#!ifdef A\nalias=y\n#!else foo\nalias=n\n#!endif\n", "", "", ""},
	{"text after endif makes it a comment", "#!ifdef A\nalias=y\n#!endif # A\n", "", ":1: #!ifdef A is never closed; the #!endif at kamailio.cfg:3 is a comment", ""},
	{"endif needs a line end", "#!ifndef A\nalias=y\n#!endif", "", "#!ifndef A is never closed; the #!endif at kamailio.cfg:3 is a comment for Kamailio: a line end is missing behind it", ""},
	{"endif without !", "#!ifdef A\nalias=y\n#endif\n#!ifdef B\n #!endif\n", "", ":1: #!ifdef A is never closed; the #endif at kamailio.cfg:3 is a comment: write #!endif", ""},
	{"endif without !, inner one", "#!ifdef A\n#!ifndef B\n# endif # B\n#!endif\n", "", ":1: #!ifdef A is never closed; the #endif at kamailio.cfg:3 is a comment: write #!endif", ""},
	{"other words are no endif", "#!ifdef A\n#endifs\n# the endif\n", "", ":1: #!ifdef A is never closed; put #!endif on a line of its own", ""},
	{"not closed", "alias=x\n#!ifdef A\nalias=y\n", "", ":2: #!ifdef A is never closed; put #!endif on a line of its own", ""},
	{"endif alone", "alias=x\n#!endif\n", "", ":2: #!endif without #!ifdef; take it away", ""},
	{"endif too many", "#!ifdef A\n#!endif\n#!endif\nalias=x\n#!ifndef A\nalias=y\n#!endif\n", "", ":3: #!endif without #!ifdef", ""},
	{"endif too many, and an ifdef too", "#!ifdef A\n#!endif\n#!endif\nalias=x\n#!ifdef A\nalias=y\n", "x", "", ""},
	{"the same the other way round", "#!endif\n#!ifndef A\nalias=y\n", "y", "", ""},
	{"endif too many within a route", "request_route {\n#!endif\n exit;\n}\n#!ifndef A\nalias=y\n", "y", "", ""},
	{"endif too many at the end without line end", "alias=x\n#!endif", "x", "", ""},
	{"else alone", "#!else\nalias=y", "y", "", ""},
	{"else twice", "#!define A\n#!ifdef A\nalias=a\n#!else\nalias=b\n#!else\nalias=c\n#!endif\n", "a c", "", ""},
	{"ifdef without name", "#!ifdef\nalias=z\n#!endif\n", "", "#!endif without #!ifdef", ""},
	{"ifdef of a number", "#!ifdef 1\n#!endif\n", "", "#!ifdef needs a name", "Kamailio takes a name from the next line"},
	{"skipped text isn't scanned", "#!ifdef A\nalias=\"\n/*\n#!foo\ninclude_file \"nope\"\n#!define X\n#!endif\nalias=z", "z", "", ""},
	{"conditions count within skipped comments", "#!ifdef A\n# #!endif\nalias=y", "y", "", ""},
	{"and after ##", "#!ifdef A\n##!endif\nalias=y", "y", "", ""},
	{"and in the middle of a line", "#!ifdef A\nx #!ifdef B\nalias=y\n#!endif\n", "", "#!ifdef A is never closed", ""},
	{"version", "#!ifdef KAMAILIO_5\nalias=a\n#!endif\n#!ifdef KAMAILIO_5_6\nalias=b\n#!endif\n#!ifdef KAMAILIO_5_6_3\nalias=c\n#!endif\n#!ifdef KAMAILIO_6\nalias=d\n#!endif\n#!ifdef KAMAILIO_VERSION\nalias=e\n#!endif\n", "a b c", "", ""},
	{"loaded modules", "loadmodule \"pv.so\"\n#!ifdef MOD_pv\nalias=a\n#!endif\nloadmodule \"/usr/lib/x86_64-linux-gnu/kamailio/modules/xlog.so\" #!ifdef MOD_xlog\nalias=b\n#!endif\n#!ifdef MOD_tm\nalias=c\n#!endif\n", "a b", "", ""},

	// Substitutions.
	{"subst", "#!subst \"/FOO/bar/\"\nalias=\"xFOOyFOO\" alias='FOO' alias=FOO", "xbaryFOO bar FOO", "", ""},
	{"flags", "#!subst '/foo/bar/gi'\nalias=\"xFOOyFoo\"", "xbarybar", "", ""},
	{"only what follows", "alias=\"FOO\"\n#!subst '/FOO/bar/'\nalias=\"FOO\"", "FOO bar", "", ""},
	{"other separators", "#!subst \"!FOO!bar!g\"\n#!subst \"xaxbx\"\nalias=\"FOOa\"", "bbra", "", ""},
	{"escaped separator", "#!subst \"!F\\!O!b\\!r!\"\nalias=\"xF!Oy\"", "xb!ry", "", ""},
	{"GNU's classes, word ends and counts", "#!subst '/\\<a\\w{,2}\\s/X/'\nalias=\"ab c\"", "Xc", "", ""},
	{"groups", "#!subst '/F(.)(.)O/[\\2\\1\\0\\12&]/'\nalias=\"xFabOy\"", "x[baFabOa2&]y", "", ""},
	{"group that didn't match", "#!subst '/(a)|(b)/[\\1\\2]/g'\nalias=\"ab\"", "[a][b]", "", ""},
	{"group that isn't there", "#!subst '/a/[\\7]/'\nalias=\"a\"", "[]", "", ""},
	{"escapes in the replacement", `#!subst '/FOO/a\tc\qd\\e\//'` + "\nalias=\"xFOOy\"", "xa\tcqd\\e/y", "", ""},
	{"leftmost longest", "#!subst '/a|ab/X/'\nalias=\"zab\"", "zX", "", ""},
	{"lines", "#!subst '/^b/X/'\n#!subst '/F.O/Y/'\nalias=\"a\nb\" alias=\"F\nO\"", "a\nX F\nO", "", ""},
	{"no lines", "#!subst '/^b/X/s'\n#!subst '/F.O/Y/s'\nalias=\"a\nb\" alias=\"F\nO\"", "a\nb Y", "", ""},
	{"classes and counts", "#!subst '/[[:upper:]]{2}[^.]/X/'\nalias=\"aBCd\"", "aX", "", ""},
	{"empty match changes nothing", "#!subst '/x*/y/g'\nalias=\"abc\"", "abc", "", ""},
	{"empty replacement", "#!subst '/FOO//g'\nalias=\"xFOOy\"", "xy", "", ""},
	{"one after the other", "#!subst '/FOO/BAR/'\n#!subst '/BAR/c/'\nalias=\"xFOOy\"", "xcy", "", ""},
	{"earlier ones change later ones", "#!subst '/BAR/c/'\n#!subst '/FOO/BAR/'\nalias=\"xFOOy\"", "xcy", "", ""},
	{"joined strings are one", "#!subst '/FOO/bar/'\nalias=\"xFO\" \"Oy\"", "xbary", "", ""},
	{"joined in the directive, comment after", "#!subst \"/FOO/\" \"bar/\" # c\nalias=\"FOO\"", "bar", "", ""},
	{"define as the string", "#!define S \"/FOO/bar/\"\n#!subst S\nalias=\"FOO\"", "bar", "", ""},
	{"string of a define", "#!subst '/FOO/bar/'\n#!define X \"FOO\"\nalias=X", "bar", "", ""},
	{"file name", "#!subst '/DIR/a/'\ninclude_file \"DIR.inc\"", "inc-a", "", ""},
	{"variables", "#!define D q\n#!subst '/FOO/$env(MYENV)$(env(MYENV))$def(D)$$/'\nalias=\"FOO\"", "myvalmyvalq$", "", ""},
	{"substdef", "#!substdef \"!FOO!bar!g\"\nalias=\"xFOOy\" alias=FOO", "xbary bar", "", ""},
	{"substdef, no plain name", "#!substdef \"!F(.)O!bar!g\"\nalias=\"xFOOy\" alias=FOO", "xbary FOO", "", ""},
	{"substdefs", "#!substdefs \"!FOO!bar baz!g\"\nalias=\"xFOOy\" alias=FOO", "xbar bazy bar baz", "", ""},
	{"substdef of a define", "#!define FOO x\n#!substdef \"!FOO!bar!g\"", "", ":2: FOO is already defined", ""},
	{"define of a substdef", "#!substdef \"!FOO!bar!g\"\n#!define FOO x", "", ":2: FOO is already defined", ""},
	{"no string", "#!subst /FOO/bar/g", "", "#!subst wants a string", ""},
	{"too short", "#!subst '/a'", "", "string of #!subst has 2 bytes", ""},
	{"two separators", "#!subst '/FOO/bar'", "", "#!subst has no third separator /", ""},
	{"unknown flag", "#!subst '/FOO/bar/e'", "", "#!subst has an unknown flag; the flags are g, i and s", ""},
	{"bad expression", "#!subst '/FOO(/bar/'", "", "( is never closed", ""},
	{"nothing to repeat", "#!subst '/*a/X/'", "", "can't be used", ""},
	{"dollar alone", "#!subst '/FOO/a$>/'", "", "#!subst has a variable that is malformed; write $$ for a dollar", ""},
	{"variable left open", "#!subst '/FOO/$(def(X)/'", "", "#!subst has a variable that is malformed", ""},
	{"back reference", "#!subst '/(.)\\1/X/'", "", "a piece of it is a back reference", "GNU's library has them"},

	// Environment.
	{"defenv", "#!defenv MYENV\n#!defenv X=MYENV\nalias=MYENV alias=X", "myval myval", "", ""},
	{"defenvs", "#!defenvs MYENV # foo\n#!defenvs X=MYENV\nalias=MYENV alias=X", "myval myval", "", ""},
	{"empty", "#!defenv X=EMPTYENV\nX alias=x", "x", "", ""},
	{"not set", "#!defenv NOSUCH", "", ":1: environment variable NOSUCH is not set; set it for siptraced", ""},
	{"space around =", "#!defenv X = MYENV", "", "environment variable X is not set", ""},
	{"trydefenv", "#!trydefenv NOSUCH\n#!trydefenvs X=MYENV\n#!ifdef NOSUCH\nalias=d\n#!endif\nalias=X", "myval", "", ""},
	{"defenv twice", "#!define X a\n#!trydefenvs X=MYENV", "", "X is already defined", ""},
	{"quote in the value", "#!defenvs X=QENV\nalias=X", "", "string is never closed", "Kamailio logs it and starts"},

	// Includes.
	{"include_file", "include_file \"a.inc\"\nalias=z", "inc-a z", "", ""},
	{"directive form", "#!include_file \"a.inc\"\n!!import_file \"a.inc\"\nalias=z", "inc-a inc-a z", "", ""},
	{"import_file of nothing", "import_file \"nope.inc\"\nalias=z", "z", "", ""},
	{"text after it", "include_file\n\"a.inc\" alias=z # c", "inc-a z", "", ""},
	{"in a statement", "alias=include_file \"val.inc\"", "v", "", ""},
	{"beside the file that includes", "include_file \"sub/b.inc\"", "b c", "", ""},
	{"condition over two files", "include_file \"if.inc\"\nalias=y\n#!endif\nalias=z", "z", "", ""},
	{"ten deep", "include_file \"d1.inc\"", "deep", "", ""},
	{"eleven deep", "include_file \"d0.inc\"", "", "d9.inc:1: files include each other more than 10 deep", ""},
	{"comments", "# include_file \"nope\"\n//include_file \"nope\"\n#include_file \"nope\"\nalias=z", "z", "", ""},

	// Since 5.7; 5.6.3 takes these for comments.
	{"ifexp", "#!ifexp 1 == 1\nalias=y\n#!else\nalias=n\n#!endif\n", "y", "", "5.7"},
	{"ifexp, skipped", "#!ifdef Q\n#!ifexp 1 ==\nalias=z\n#!else\nalias=n\n#!endif\n#!endif\nalias=o", "o", "", "5.7"},
	{"version, where expressions are", "#!ifdef KAMAILIO_5_7\nalias=new\n#!endif\n#!ifdef KAMAILIO_5_6\nalias=old\n#!endif\n#!ifexp KAMAILIO_VERSION >= 5007000\nalias=y\n#!endif\n", "new y", "", "5.7"},
	{"version, where an expression is left out", "#!ifdef Q\n#!ifexp 1\n#!endif\n#!endif\n#!ifdef KAMAILIO_5_7\nalias=new\n#!endif\n", "new", "", "5.7"},
	{"version, where only a define would be", "#!ifdef Q\n#!defexp X 1\n#!endif\n#!ifdef KAMAILIO_5_6\nalias=old\n#!endif\n", "old", "", ""},
	{"defexp", "#!define A 127.0.0.1\n#!defexp X \"sip-\" + A\n#!defexp P '\"' + A + ':5060\"'\nalias=X alias=P", "sip-127.0.0.1 127.0.0.1:5060", "", "5.7"},
	{"defexps", "#!defexps X 5000 + 70\nalias=X", "5070", "", "5.7"},
}

// factEnv is the environment of the facts.
func factEnv() map[string]string {
	return map[string]string{"MYENV": "myval", "EMPTYENV": "", "QENV": `a"b`}
}

// factFiles are the files that they include.
func factFiles() map[string]string {
	files := map[string]string{
		"a.inc": "alias=\"inc-a\"\n", "val.inc": "\"v\"", "if.inc": "#!ifdef A\nalias=open\n",
		"sub/b.inc": "alias=b include_file \"c.inc\"", "sub/c.inc": "alias=c\n", "c.inc": "alias=wrong\n", "d10.inc": "alias=deep",
	}
	for i := range 10 {
		files[fmt.Sprintf("d%d.inc", i)] = fmt.Sprintf("include_file \"d%d.inc\"", i+1)
	}
	return files
}

func TestPreprocess(t *testing.T) {
	env := factEnv()
	opt := Options{
		Env:      func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: mapFiles(factFiles()),
	}
	for _, tt := range preprocessFacts {
		t.Run(tt.name, func(t *testing.T) {
			aliases(t, tt.src, opt, tt.want, tt.err)
		})
	}
}

// aliases reads a configuration, and compares the hosts of its aliases or the error.
func aliases(t *testing.T, src string, opt Options, want, wantErr string) {
	t.Helper()
	c, err := ParseBytes("kamailio.cfg", []byte(src), opt)
	if wantErr != "" {
		if err == nil || !strings.Contains(err.Error(), wantErr) {
			t.Errorf("got error %v, want %s", err, wantErr)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range c.Aliases {
		got = append(got, a.Host)
	}
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %q, want %q", s, want)
	}
}

func mapFiles(files map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if s, ok := files[name]; ok {
			return []byte(s), nil
		}
		return nil, fs.ErrNotExist
	}
}

func TestOptions(t *testing.T) {
	const src = "#!trydef X a\nalias=X\n#!ifdef KAMAILIO_6_1\nalias=new\n#!endif\n"
	c := parse(t, src, Options{CommandLine: CommandLine{Defines: []string{`X="b"`}, Version: "6.1.4"}})
	if len(c.Aliases) != 2 || c.Aliases[0].Host != "b" || len(c.Notes) != 0 || c.Defines["KAMAILIO_VERSION"] != "6001004" {
		t.Errorf("got %+v, notes %v", c.Aliases, c.Notes)
	}
	if c = parse(t, src, Options{}); len(c.Aliases) != 1 || len(c.Notes) != 1 || c.Notes[0].Pos.Line != 3 {
		t.Errorf("without a version: got %+v, notes %v", c.Aliases, c.Notes)
	}
}

// TestUndef: known since 6.2.
func TestUndef(t *testing.T) {
	const src = "#!define X a\n#!define Y b\n#!undef X # x\n#!tryundef Y\n#!tryundef NOSUCH\n!!undef NOSUCH\n#!define X c\nalias=X alias=Y"
	c := parse(t, src, Options{CommandLine: CommandLine{Version: "6.2.0"}})
	if len(c.Aliases) != 2 || c.Aliases[0].Host != "c" || c.Aliases[1].Host != "Y" {
		t.Errorf("got %v", c.Aliases)
	}
	if len(c.Notes) != 1 || c.Notes[0].String() != "kamailio.cfg:6: NOSUCH is not defined here; #!tryundef says that this is meant" {
		t.Errorf("got notes %v", c.Notes)
	}
	if _, err := ParseBytes("kamailio.cfg", []byte("#!undef \n"), Options{CommandLine: CommandLine{Version: "6.2.0"}}); err == nil {
		t.Error("#!undef without a name is taken")
	}
	older := Options{CommandLine: CommandLine{Version: "6.1.4"}}
	if c := parse(t, "#!define X a\n#!undef X\nalias=X", older); c.Aliases[0].Host != "a" || len(c.Notes) != 1 || c.Notes[0].Msg != "#!undef is a comment for Kamailio before 6.2" {
		t.Errorf("6.1: got %v, notes %v", c.Aliases, c.Notes)
	}
	if _, err := ParseBytes("kamailio.cfg", []byte("#!define X a\n#!undef X\n#!define X b"), Options{}); err == nil || !strings.Contains(err.Error(), "kamailio.cfg:3: X is already defined; at kamailio.cfg:2 #!undef is a comment for Kamailio before 6.2; --kamailio-version") {
		t.Errorf("defined again: got %v", err)
	}
	if _, err := ParseBytes("kamailio.cfg", []byte("listen=udp:127.0.0.1 advertise udp:a:1"), older); err == nil || !strings.Contains(err.Error(), "Kamailio before 6.2 refuses a protocol in advertise; write advertise host:port") {
		t.Errorf("6.1: got %v", err)
	}
}

func TestNotes(t *testing.T) {
	for src, want := range map[string]string{
		"#!ifdf X\n":                             "#!ifdf is a comment for Kamailio; did you mean #!ifdef",
		"#!define A\n#!ifdef A B\n#!endif\n":     "ignores what follows #!ifdef A",
		"#!else\n":                               "ignores an #!else",
		"#!ifdef A\n#!else x\n#!endif\n":         "#!else is a comment",
		"listen=udp:eth7:5060":                   "address of eth7 is not known here",
		"#!KAMAILIO\n#!SER\n":                    "",
		"#!endif\n#!ifndef A\n":                  "kamailio.cfg:1: Kamailio warns at an #!endif without #!ifdef, and goes on kamailio.cfg:2: #!ifndef A is never closed; Kamailio counts the #!endif at kamailio.cfg:1 for it",
		"#!endif":                                "#!endif is a comment for Kamailio: a line end is missing behind it",
		"#!ifdef KAMAILIO_6_1\n#!endif\n":        "KAMAILIO_6_1 is answered for Kamailio 5.6.3, because the version isn't given; --kamailio-version X.Y.Z, or the key kamailio_version, says",
		"#!ifexp KAMAILIO_VERSION\n#!endif\n":    "KAMAILIO_VERSION is answered for Kamailio 5.7.0, because",
		"#!ifdef KAMAILIO_DBMS\n#!endif\n":       "",
		"#!ifdef KAMAILIO_\n#!endif\n":           "",
		"#!undef X\n":                            "#!undef is a comment for Kamailio before 6.2; --kamailio-version",
		"listen=udp:127.0.0.1 advertise udp:a:1": "Kamailio before 6.2 refuses a protocol in advertise; --kamailio-version",
	} {
		got := ""
		for _, n := range parse(t, src, Options{Interfaces: host}).Notes {
			got += n.String() + " "
		}
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q: got %q, want %q", src, got, want)
		}
	}
}

// TestExpression is a table of what the library does that Kamailio 5.7 and later
// evaluate expressions with. What it can't evaluate is logged: bad is the reason
// that the note gives.
func TestExpression(t *testing.T) {
	tests := []struct{ name, expr, want, bad string }{
		{"number", "5", "5", ""},
		{"fraction", "7.5", "7", ""},
		{"precedence", "2+3*4 % 7 == 7 && 1", "1", ""},
		{"comparisons are equals", "3 > 2 == 1", "1", ""},
		{"parentheses", "(2+3)*4", "20", ""},
		{"minus", "-3 - -2", "-1", ""},
		{"not", "!0 + !5", "1", ""},
		{"or is the value", "0 || 0 || 2", "2", ""},
		{"and is the value", "3 && 2", "2", ""},
		{"or leaves the right out", `1 || "a" * 2`, "1", ""},
		{"and leaves the right out", `0 && "a" * 2`, "0", ""},
		{"comparisons", "(1<2) + (2<=2) + (3>2) + (3>=4) + (1!=1)", "3", ""},
		{"strings", `"a" + 'b' + 1`, "ab1", ""},
		{"string and fraction", `"a" + 7 / 2`, "a3.5", ""},
		{"escapes", `"a\"b" + 'c\'d\n'`, "a\"bc'd\n", ""},
		{"string order", `"4" > 20`, "1", ""},
		{"number order", `4 > "20"`, "0", ""},
		{"number and string", `1 + "20"`, "21", ""},
		{"string and number", `"1" + 20`, "120", ""},
		{"define with value", `A == "x"`, "1", ""},
		{"define in quotes", `B == "x y"`, "1", ""},
		{"define of a number is a string", "N == 7", "1", ""},
		{"and sorts like one", "N > 10", "1", ""},
		{"define without value", "V && V", "1", ""},
		{"not defined", "NOSUCH || 0", "0", ""},
		{"a string counts with and", "A && N", "1", ""},
		{"version", "KAMAILIO_VERSION >= 6001000", "1", ""},
		{"system", `OS_NAME == "linux"`, "1", ""},
		{"power", "2 ** 3 ** 2 - -2 ** 2", "508", ""},
		{"bits", "(1 << 4 | 3 ^ 1 & 5) + ^0", "17", ""},
		{"comment", "1 # x", "1", ""},
		{"assignment", "Q = 5", "5", ""},
		{"assignment and comma", "Q = 5, Q + 1", "6", ""},

		// "" beside a number is not-a-number, which differs from everything.
		{"no value != nothing", `V != ""`, "1", ""},
		{"no value == nothing", `V == ""`, "0", ""},
		{"not defined != nothing", `NOSUCH != ""`, "1", ""},
		{"not defined == nothing", `NOSUCH == ""`, "0", ""},
		{"nor less", `(1 < "a") + (1 > "a") + (1 <= "a") + (1 >= "a")`, "0", ""},
		{"value == nothing", `A == ""`, "0", ""},
		{"negative text is no number", `1 > "-5"`, "0", ""},
		{"not not-a-number", `!(1 + "")`, "0", ""},
		{"or passes over not-a-number", `1 + "" || 0`, "0", ""},

		{"empty", "", "", "it is empty"},
		{"operand missing", "1 ==", "", "it ends too early"},
		{"parenthesis missing", "(1", "", "it ends too early"},
		{"parenthesis too many", "1)", "", `it can't go on at ")"`},
		{"string not closed", `"a`, "", "a string is never closed"},
		{"function", "defined(A)", "", "defined is called as a function"},
		{"two values", `1 "a"`, "", `it can't go on at "\""`},
		{"number and letters", "4ever", "", "a number is malformed"},
		{"two points", "1.2.3", "", "a number is malformed"},
		{"zero", "1 / 0", "", "division by zero"},
		{"string times", `"a" * 2`, "", "* is for numbers"},
		{"define times", "N * 2", "", "* is for numbers"},
		{"define and bits", "N & 4", "", "& is for numbers"},
		{"minus string", `-"a"`, "", "- is for numbers"},
		{"not define", "!A", "", "! is for numbers"},
		{"assignment to a number", "1 = 2", "", "= wants a name"},
		{"nested", strings.Repeat("(", 200), "", "it is nested more than 100 deep"},
		{"unknown sign", "1 ? 2", "", `it can't go on at "?"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const defs = "#!define A x\n#!define B \"x y\"\n#!define N 7\n#!substdef \"!V!!g\"\n"
			c := parse(t, defs+"#!defexps X "+tt.expr+"\n#!ifexp "+tt.expr+"\nalias=yes\n#!endif\n", Options{CommandLine: CommandLine{Version: "6.1.4"}})
			if got := strings.Trim(c.Defines["X"], `"`); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if yes := tt.want != "" && tt.want != "0"; (len(c.Aliases) == 1) != yes {
				t.Errorf("#!ifexp: got %v, want %v", len(c.Aliases) == 1, yes)
			}
			var notes []string
			for _, n := range c.Notes {
				notes = append(notes, n.String())
			}
			if got := strings.Join(notes, "\n"); tt.bad == "" && got != "" || !strings.Contains(got, tt.bad) || tt.bad != "" && (len(notes) != 2 || !strings.Contains(got, "kamailio.cfg:6: #!ifexp counts as false")) {
				t.Errorf("got notes %q, want %s", got, tt.bad)
			}
		})
	}
}

// TestEventRoute: what a compiler gets, and where it came from.
func TestEventRoute(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"plain", " drop; ", `2:drop ;`},
		{"empty", "", ""},
		{"braces in strings and variables", ` $var(x) = "}"; $(rU{s.len}) '{' `, `2:$var(x) 2:= 2:"}" ; 2:$(rU{s.len}) 2:"{"`},
		{"comments", "\n# }\n// }\n/* }\n*/ drop/**/;\n", "6:drop 6:;"},
		{"defines, not in strings and variables", ` X "X" $var(X) @X XX `, `2:1 2:"X" 2:$var(X) 2:@X 2:XX`},
		{"substitution", ` "a\\FOO\n" `, `2:"a\\b\"r\n"`},
		{"joined strings", "\"a\"\n  \"b\" drop", `2:"ab" 3:drop`},
		{"string over lines", "'a\nb'\nX", `2:"a\nb" 4:1`},
		{"conditions", "\n#!ifdef NO\n drop;\n#!else\n exit;\n#!endif\n", "6:exit ;"},
		{"define with continuation", "\n#!define Z 1 \\\n + 2\nZ", "5:1 5:+ 5:2"},
		{"signs", "$var(x)==1&& !1 = =2", "2:$var(x) = = 1 & & 2:! 1 2:= 2:= 2"},
		{"variable over lines", "$_s(a\nb) ;", "2:$_s(a\nb) 3:;"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, "#!define X 1\n#!subst '/FOO/b\"r/'\nevent_route[siptrace:msg] {"+tt.body+"}\nroute { }\n", Options{})
			r, _ := c.EventRoute("siptrace:msg")
			var got []string
			for _, k := range r.Tokens {
				text := k.Text
				if k.Kind == String {
					text = quote(text)
				}
				if !k.Adjoins || len(got) == 0 {
					text = fmt.Sprintf("%d:%s", k.Pos.Line-1, text)
				}
				got = append(got, text)
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
			if end := 3 + strings.Count(tt.body, "\n"); r.End.Line != end {
				t.Errorf("ends at line %d, want %d", r.End.Line, end)
			}
		})
	}
}

// TestSkipped: modules that a define would load.
func TestSkipped(t *testing.T) {
	c := parse(t, `loadmodule "pv.so"
#!ifdef WITH_HOMER
# loadmodule "no.so"
loadmodule "siptrace.so"
  loadmodule( '/usr/lib/sl.so' )
x loadmodule "no.so"
#!ifndef B
loadmodule "tm.so"
#!else
loadmodule "rr.so"
#!endif
#!endif
#!ifndef WITH_HOMER
loadmodule "kex.so"
#!else
loadmodule "xlog.so"
#!endif
`, Options{})
	var got []string
	for _, s := range c.Skipped {
		text := fmt.Sprintf("%s %s:", s.Name, s.Pos)
		for _, w := range s.Within {
			text += fmt.Sprintf(" %s (%s)", w, w.Define())
		}
		got = append(got, text)
	}
	diff(t, "skipped", got, []string{
		"siptrace kamailio.cfg:4: #!ifdef WITH_HOMER (WITH_HOMER)",
		"sl kamailio.cfg:5: #!ifdef WITH_HOMER (WITH_HOMER)",
		"tm kamailio.cfg:8: #!ifdef WITH_HOMER (WITH_HOMER)",
		"rr kamailio.cfg:10: #!ifdef WITH_HOMER (WITH_HOMER) the #!else of #!ifndef B (B)",
		"xlog kamailio.cfg:16: the #!else of #!ifndef WITH_HOMER (WITH_HOMER)",
	})
	if !c.Loads("pv") || c.Loads("siptrace") {
		t.Error("modules that are loaded and not")
	}
}
