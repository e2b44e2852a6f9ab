package kamcfg

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"siptraced/compat/ere"
)

// Options say what Kamailio would have from its command line and its host. The
// zero value works.
type Options struct {
	CommandLine
	// Env looks up the variables of #!defenv and $env(NAME). Nil: os.LookupEnv.
	Env func(name string) (string, bool)
	// ReadFile reads included files. Nil: os.ReadFile.
	ReadFile func(name string) ([]byte, error)
	// Interfaces gives this host's addresses, for listen lines that name an
	// interface or a wildcard. It is called only if there are such. Nil: none.
	Interfaces func() ([]Interface, error)
	// HostName is $HN(part) of Kamailio's host: n the name, f the one with domain, d
	// the domain, i the address. Nil: they are not known.
	HostName func(part string) (string, error)
	// Transform is a transformation, "{s.len}", of a text. Nil: none but {re.subst}
	// is known.
	Transform func(text, transformation string) (string, error)
}

// Parse reads a kamailio.cfg and what it includes. Every error is an *Error.
func Parse(path string, opt Options) (*Config, error) {
	if opt.ReadFile == nil {
		opt.ReadFile = os.ReadFile
	}
	data, err := opt.ReadFile(path)
	if err != nil {
		return nil, &Error{Pos: Pos{File: path}, Msg: "can't read the configuration", Hint: "is the path right, and may siptraced read it?", Err: err}
	}
	return ParseBytes(path, data, opt)
}

// ParseBytes is Parse for a main file that has been read already; path is for
// messages and for finding included files.
func ParseBytes(path string, data []byte, opt Options) (*Config, error) {
	if opt.ReadFile == nil {
		opt.ReadFile = os.ReadFile
	}
	if opt.Env == nil {
		opt.Env = os.LookupEnv
	}
	version := opt.Version
	if version == "" {
		version = DefaultVersion
	}
	cfg, err := read(path, data, version, opt)
	if errors.Is(err, errNewer) {
		return read(path, data, expressionVersion, opt)
	}
	return cfg, err
}

// read reads the file as that version does.
func read(path string, data []byte, version string, opt Options) (*Config, error) {
	l := &lexer{opt: opt, cfg: &Config{}, given: map[string]bool{}, notUndefined: map[string]string{}, hosts: map[string]lookup{}, versionText: version, defs: map[string]string{}, past: map[string][]past{}}
	own, number := versionDefines(version)
	l.version = number
	for name, value := range own {
		l.setDefine(name, value)
	}
	if err := l.commandLine(); err != nil {
		return nil, err
	}
	if err := l.run(path, data); err != nil {
		return nil, err
	}
	l.cfg.Defines = map[string]string{}
	for name, value := range l.defs {
		if !strings.Contains(value, unknownMark) {
			l.cfg.Defines[name] = value
		}
	}
	p := &parser{lexer: l, cfg: l.cfg}
	for _, step := range []func() error{p.file, p.commandLine, p.sockets} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return l.cfg, nil
}

// parser goes through the tokens; it knows the statements at the top level and
// steps over route blocks.
type parser struct {
	lexer *lexer
	cfg   *Config
	i     int
	port  int // of the port= line last seen
}

func (p *parser) at(k int) token { return p.lexer.toks[min(p.i+k, len(p.lexer.toks)-1)] }

// span is from the token at index first to the one just read.
func (p *parser) span(first int) Span {
	a, b := p.lexer.toks[first], p.at(-1)
	if a.put || a.Span.File != b.Span.File {
		return Span{}
	}
	return Span{a.Span.File, a.Span.From, b.Span.To}
}

func (p *parser) is(k int, kind byte) bool { return p.at(k).Kind == kind }

// adjoins says that the k-th token ahead follows the one before it without space.
func (p *parser) adjoins(k int) bool { return p.at(k).Adjoins }

// joined steps over n tokens and gives their text, with a space where they had some.
func (p *parser) joined(n int) string {
	var b strings.Builder
	for i := range n {
		if t := p.at(i); i > 0 && !t.Adjoins {
			b.WriteString(" " + t.Text)
		} else {
			b.WriteString(t.Text)
		}
	}
	p.i += n
	return b.String()
}

// accept steps over a token of that kind.
func (p *parser) accept(kind byte) bool {
	if p.at(0).Kind != kind || kind == tEOF {
		return false
	}
	p.i++
	return true
}

// unexpected is the error for the token at hand. Strings are never repeated:
// they may hold passwords.
func (p *parser) unexpected(hint, where string) error {
	t := p.at(0)
	what := "unexpected " + strconv.Quote(t.Text)
	switch {
	case t.Kind == tEOF:
		what = "unexpected end of the file"
	case t.Kind == tString:
		what = "unexpected string"
	case len(t.Text) > 40:
		what = "unexpected text"
	}
	return fail(t.Pos, p.quoteMissing(hint), "%s %s", what, where)
}

// quoteMissing replaces a hint where a string just read goes over more than one
// line: then the text after it makes no sense for want of a quote.
func (p *parser) quoteMissing(hint string) string {
	for _, s := range p.lexer.toks[max(0, p.i-8):p.i] {
		if s.Kind == tString && strings.Contains(s.Text, "\n") {
			return "the string at " + s.Pos.String() + " goes over more than one line: is its closing quote missing?"
		}
	}
	return hint
}

var routeWords = []string{
	"route", "request_route", "failure_route", "onreply_route", "reply_route", "branch_route", "onsend_route", "event_route",
}

// statements are the words that can begin a statement, apart from parameters.
var statements = append([]string{
	"modparam", "modparamx", "loadmodule", "loadmodulex", "loadpath", "mpath", "cfgengine", "listen", "alias", "socket", "port",
	"flags", "avpflags",
}, routeWords...)

func (p *parser) file() error {
	for !p.is(0, tEOF) {
		t := p.at(0)
		if t.Kind == ';' {
			p.i++
			continue
		}
		if t.Kind != tWord {
			hint := "statements are name=value, modparam(...), loadmodule, route blocks"
			if t.Kind == '}' {
				hint = "a block above has one closing brace too many"
			}
			return p.unexpected(hint, "where a statement should begin")
		}
		p.i++
		var err error
		switch {
		case slices.Contains(routeWords, t.Text):
			err = p.route(t)
		case t.Text == "modparam", t.Text == "modparamx":
			err = p.modparam(t)
		case t.Text == "loadmodule", t.Text == "loadmodulex":
			err = p.loadmodule(t)
		case t.Text == "listen":
			err = p.listen(t)
		case t.Text == "alias":
			err = p.alias(t)
		case t.Text == "socket" && p.is(0, '=') && p.is(1, '{'):
			err = p.socket(t)
		case (t.Text == "flags" || t.Text == "avpflags") && p.is(0, tWord):
			p.flags()
		default:
			err = p.global(t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// route steps over a block, whose tokens are kept.
func (p *parser) route(t token) error {
	first, name := p.i-1, ""
	if p.accept('[') {
		for !p.is(0, ']') {
			if p.is(0, tEOF) || p.is(0, '{') {
				return fail(t.Pos, "close it with ]", "name of the %s is never closed", t.Text)
			}
			name += p.at(0).Text
			p.i++
		}
		p.i++
	} else if t.Text == "event_route" {
		return p.unexpected("write event_route[module:event] { ... }", "after event_route")
	}
	open := p.at(0)
	if open.Kind != '{' {
		return p.unexpected("write "+t.Text+" { ... }", "where the block of "+t.Text+" should begin")
	}
	inner := p.i + 1
	for depth := 0; ; p.i++ {
		switch p.at(0).Kind {
		case tEOF:
			return fail(open.Pos, "close it with }; a brace within may be too many", "block of %s is never closed", t.Text)
		case '{':
			depth++
		case '}':
			depth--
		case tWord:
			if next := p.at(1).Kind; slices.Contains(routeWords, p.at(0).Text) && (next == '{' || next == '[') {
				return fail(open.Pos, "close it with }", "block of %s is not closed where the next one begins (%s)", t.Text, p.at(0).Pos)
			}
		}
		if depth == 0 {
			break
		}
	}
	b := Block{Kind: t.Text, Route: Route{Name: name, Pos: t.Pos, End: p.at(0).Pos}}
	for _, t := range p.lexer.toks[inner:p.i] {
		b.Tokens = append(b.Tokens, t.Token)
	}
	p.i++
	b.Span = p.span(first)
	p.cfg.Blocks = append(p.cfg.Blocks, b)
	switch {
	case t.Text == "route" && name != "":
		p.cfg.Routes = append(p.cfg.Routes, b.Route)
	case t.Text == "event_route":
		if r, ok := p.cfg.EventRoute(name); ok {
			return fail(t.Pos, "Kamailio takes one; put them together", "event_route[%s] is already at %s", name, r.Pos)
		}
		p.cfg.EventRoutes = append(p.cfg.EventRoutes, b.Route)
	}
	return nil
}

// modparam reads modparam("module", "name", value).
func (p *parser) modparam(t token) error {
	first := p.i - 1
	form := `write ` + t.Text + `("module", "parameter", value)`
	if !p.accept('(') {
		return p.unexpected(form, "after "+t.Text)
	}
	module, noModule, err := p.modparamName(t, form, "module")
	if err != nil {
		return err
	}
	name, noName, err := p.modparamName(t, form, "parameter")
	if err != nil {
		return err
	}
	from := p.i
	v, err := p.modparamValue(t)
	if err != nil {
		return err
	}
	value := p.lexer.toks[from].Span
	value.To = p.at(-1).Span.To
	if p.is(0, ',') {
		return fail(p.at(0).Pos, form, "%s has too many arguments", t.Text)
	}
	if err := p.closed(t); err != nil {
		return err
	}
	par := Param{Module: module, Name: name, Value: v, Pos: t.Pos, Span: p.span(first), ValueSpan: value}
	for _, why := range []*Error{noModule, noName, asError(v.Unresolved)} {
		if why != nil {
			par.Unresolved = unresolved(t.Pos, "parameter "+name+" of "+module, why)
		}
	}
	if noModule == nil && strings.Trim(module, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		if par.match, err = ere.Compile("^("+module+")$", 0); err != nil {
			return fail(t.Pos, `separate names by |, as in "acc|siptrace"`, "module names of %s are not a regular expression", t.Text)
		}
	}
	p.cfg.Params = append(p.cfg.Params, par)
	return nil
}

// modparamName reads the first or second argument, and the comma behind it.
func (p *parser) modparamName(statement token, form, what string) (name string, unknown *Error, err error) {
	switch {
	case p.is(0, tWord):
		return "", nil, p.unexpected("put it in quotes", "as the name of a "+what)
	case !p.is(0, tString):
		return "", nil, p.unexpected(form, "instead of the name of a "+what)
	}
	v := p.evaluated(statement)
	switch {
	case p.accept(','):
		return v.Str, asError(v.Unresolved), nil
	case p.is(0, ')'):
		return "", nil, fail(p.at(0).Pos, form, "%s has too few arguments", statement.Text)
	}
	return "", nil, p.unexpected(form, "where a comma should be")
}

// evaluated steps over a string, which modparamx evaluates.
func (p *parser) evaluated(statement token) Value {
	t := p.at(0)
	p.i++
	v := Value{Str: t.Text, Unresolved: t.Unresolved}
	if statement.Text == "modparamx" && v.Unresolved == nil {
		var why *Error
		if v.Str, why = p.lexer.evaluate(t.Text, statement.Pos, p.i-1); why != nil {
			v.Unresolved = why
		}
	}
	return v
}

// modparamValue reads the third argument; that of modparamx may be a variable.
func (p *parser) modparamValue(statement token) (Value, error) {
	t := p.at(0)
	if p.is(0, tString) {
		return p.evaluated(statement), nil
	}
	v, n := variableAt(t.Text, t.Pos)
	if statement.Text != "modparamx" || t.Kind != tVar || !strings.Contains(t.Text, "(") || v == nil || n != len(t.Text) {
		return p.value("put a string in quotes; a name is taken only if it is defined, by #!define further up or by --define")
	}
	v.before = p.i
	p.i++
	val := p.lexer.startValue(v)
	switch {
	case val.null:
		return Value{}, fail(t.Pos, "define it further up", "%s has no value, and Kamailio refuses that here", v.raw)
	case !val.known():
		return Value{Str: v.raw, Unresolved: val.unknown}, nil
	case !val.isNumber:
		return Value{Str: val.text}, nil
	}
	number, err := strconv.ParseInt(val.text, 10, 32)
	if err != nil {
		number = 0 // as Kamailio has text that is no number
	}
	return Value{Int: number, IsInt: true}, nil
}

var booleans = map[string]int64{
	"yes": 1, "on": 1, "true": 1, "enable": 1,
	"no": 0, "off": 0, "false": 0, "disable": 0,
}

// value reads a string or an integer.
func (p *parser) value(hint string) (Value, error) {
	t := p.at(0)
	if p.accept(tString) {
		return Value{Str: t.Text, Unresolved: t.Unresolved}, nil
	}
	if !t.known() {
		return Value{Str: p.joined(p.run()), Unresolved: t.Unresolved}, nil
	}
	minus := p.is(0, '-') && p.is(1, tWord)
	w := t.Text
	if minus {
		w = p.at(1).Text
	}
	n, ok, err := ParseInt(w)
	if b, is := booleans[w]; is && !minus {
		n, ok = b, true
	}
	if t.Kind != tWord && !minus || !ok {
		return Value{}, p.unexpected(hint, "where a string or a number should be")
	}
	if err != nil {
		return Value{}, fail(t.Pos, "Kamailio would cut it", "%s: %v", w, err)
	}
	p.i++
	if minus {
		p.i++
		n = -n
	}
	return Value{Int: n, IsInt: true}, nil
}

// loadmodule reads loadmodule "x.so", and since 5.7 loadmodule("x.so", "opts").
func (p *parser) loadmodule(t token) error {
	first, paren := p.i-1, p.accept('(')
	if !p.is(0, tString) {
		return p.unexpected(`write loadmodule "name.so"`, "instead of the name of a module")
	}
	name := p.at(0).Text
	p.i++
	if paren && p.accept(',') && !p.accept(tString) {
		return p.unexpected("options of loadmodule are a string", "after the name of a module")
	}
	if paren {
		if err := p.closed(t); err != nil {
			return err
		}
	}
	if t.Text == "loadmodulex" {
		name, _ = p.lexer.evaluate(name, t.Pos, p.i-1)
	}
	p.cfg.Modules = append(p.cfg.Modules, Module{moduleName(name), t.Pos, p.span(first)})
	return nil
}

// closed steps over the closing parenthesis of a statement.
func (p *parser) closed(t token) error {
	switch {
	case p.accept(')'):
		return nil
	case p.is(0, tString):
		return p.unexpected("only strings in double quotes with nothing but space between become one", "after the last argument of "+t.Text)
	case p.at(0).Pos != p.at(-1).Pos:
		return fail(t.Pos, p.quoteMissing("close it with )"), "parenthesis of %s is never closed", t.Text)
	}
	return p.unexpected("close the parenthesis of "+t.Text+" with )", "after its last argument")
}

func moduleName(path string) string { return strings.TrimSuffix(filepath.Base(path), ".so") }

// flags steps over flags NAME:1, NAME;
func (p *parser) flags() {
	for p.accept(tWord) {
		if p.accept(':') {
			p.i++
		}
		if !p.accept(',') {
			return
		}
	}
}

// global reads a core parameter or variable: name=value, group.name=value desc
// "text", group[1].name=value, and the few that go without "=".
func (p *parser) global(t token) error {
	name := t.Text
	for {
		if p.is(0, '.') && p.is(1, tWord) {
			name += "." + p.at(1).Text
			p.i += 2
		} else if p.is(0, '[') && p.is(1, tWord) && p.is(2, ']') && p.is(3, '.') {
			name += "[" + p.at(1).Text + "]"
			p.i += 3
		} else if name == "coreparam" && p.is(0, '[') && (p.is(1, tWord) || p.is(1, tString)) && p.is(2, ']') { // since 6.1
			name += "[" + p.at(1).Text + "]"
			p.i += 3
			break
		} else {
			break
		}
	}
	bare := name == "loadpath" || name == "mpath" || name == "cfgengine"
	if p.is(0, '{') || p.is(0, '[') {
		return p.unexpected(suggest(name, routeWords, "the blocks are "+strings.Join(routeWords, ", ")), "after "+name)
	}
	if !p.accept('=') && !(bare && p.is(0, tString)) {
		return p.unexpected(suggest(name, statements, "write name=value"), "after "+name)
	}
	g := Global{Name: name, Pos: t.Pos}
	var err error
	_, num, _ := ParseInt(p.at(0).Text)
	_, boolean := booleans[p.at(0).Text]
	if run := p.word(); p.is(0, tString) || p.is(0, '-') || run == 1 && (num || boolean) {
		if g.Value, err = p.value("write " + name + "=value"); err != nil {
			return err
		}
	} else if why := p.unknown(run); why != nil {
		g.Value = Value{Str: p.joined(p.run()), Unresolved: why}
	} else if run > 0 { // LOG_LOCAL0, 192.0.2.1, sip.example.com
		g.Value.Str = p.joined(run)
	} else {
		return p.unexpected("write "+name+"=value", "where the value of "+name+" should be")
	}
	if p.at(0).Kind == tWord && (p.at(0).Text == "desc" || p.at(0).Text == "descr" || p.at(0).Text == "description") && p.is(1, tString) {
		p.i += 2
	}
	if why := asError(g.Value.Unresolved); why != nil && slices.Contains(socketGlobals, name) {
		return unresolved(t.Pos, name+", on which the sockets hang,", why)
	}
	if name == "port" {
		if !g.Value.IsInt || g.Value.Int < 1 || g.Value.Int > 65535 {
			return fail(t.Pos, "ports are 1 to 65535", "port is not one")
		}
		p.port = int(g.Value.Int)
	}
	p.cfg.Globals = append(p.cfg.Globals, g)
	return nil
}

// socketGlobals are the parameters on which the addresses of listen lines hang.
var socketGlobals = []string{"port", "tls_port_no", "disable_tcp", "enable_tls", "tls_enable", "auto_bind_ipv6"}

// unknown is why one of the next n tokens isn't known; nil: all are.
func (p *parser) unknown(n int) *Error {
	for i := range n {
		if why := asError(p.at(i).Unresolved); why != nil {
			return why
		}
	}
	return nil
}

// run counts the tokens that a value which isn't known is a piece of.
func (p *parser) run() int {
	n := 1
	for p.adjoins(n) && slices.Contains([]byte{tWord, '.', '-', ':', '[', ']', '/', '@'}, p.at(n).Kind) {
		n++
	}
	return n
}

// word counts the tokens of a host name, an address or a plain word: pieces
// with . and - between, and no space.
func (p *parser) word() int {
	if !p.is(0, tWord) {
		return 0
	}
	n := 1
	for (p.is(n, '.') || p.is(n, '-')) && p.adjoins(n) && p.is(n+1, tWord) && p.adjoins(n+1) {
		n += 2
	}
	return n
}
