package kamcfg

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// Bounds of what is read: far beyond any real configuration, and small enough
// that a hostile one costs neither memory nor time.
const (
	maxDepth   = 10       // files within files, as in Kamailio
	maxFiles   = 1000     // includes altogether
	maxBytes   = 4 << 20  // one file, and the whole text after preprocessing
	maxString  = 64 << 10 // one string, before and after substitutions; one define
	maxExpands = 100_000  // uses of defines
	maxSubsts  = 256
	maxSubst   = 2 << 10 // the string of a #!subst
	maxWork    = 1 << 30 // steps of all substitutions

	compileWork = 1 << 16 // that of an expression within a variable, which is compiled each time
)

// Kinds of token; every other kind is the character itself.
const (
	tWord   = 'w' // name, number or a piece of a host name
	tString = 's'
	tVar    = 'v' // $var(x), @select
	tEvent  = 'e' // what stands between the brackets of event_route[...]
	tEOF    = 0
)

type token struct {
	Token
	put bool // by a define: Span is the define's use
}

func (t token) known() bool { return t.Unresolved == nil }

// source is one open file, or the main one.
type source struct {
	name string
	data []byte
	off  int
	line int
	back []byte // values of defines still to be read, last byte first
	open []expansion
	use  Span // of the define whose value is being read
}

// expansion is a define that is being read: back down to base is its value.
type expansion struct {
	name string
	base int
}

type condition struct {
	on   bool
	what string // "#!ifdef NAME"
	pos  Pos
	alt  bool   // its #!else was reached
	hint string // what looks like its #!endif and isn't
}

// lexer is preprocessor and scanner in one, as in Kamailio: whether a word is
// a define depends on where it stands.
type lexer struct {
	opt   Options
	cfg   *Config
	srcs  []*source
	src   *source // the last of srcs
	conds []condition
	defs  map[string]string
	past  map[string][]past // what each define was
	given map[string]bool   // defines of the command line
	// notUndefined are names whose #!undef is a comment for that version, and why.
	notUndefined map[string]string
	subst        []substitution

	unknown []unknown // values that only Kamailio knows
	hosts   map[string]lookup

	toks  []token
	apart bool // space, a comment or a directive came after the last token
	size  int  // of all tokens: their bytes, and one for each

	from int  // where the token being read begins in its file
	put  bool // and whether it comes from a define

	version     int    // as KAMAILIO_VERSION has it
	versionText string // given, or assumed

	files, expands, work int
	balance              int   // #!if* less #!endif
	surplus              []Pos // of each #!endif with no condition open
}

// past is what a define was from a token on.
type past struct {
	from    int
	value   string
	defined bool
}

func (l *lexer) setDefine(name, value string) {
	l.defs[name] = value
	l.past[name] = append(l.past[name], past{len(l.toks), value, true})
}

// defined is what a define was before a token.
func (l *lexer) defined(name string, before int) (value string, ok bool) {
	list := l.past[name]
	i := sort.Search(len(list), func(i int) bool { return list[i].from > before })
	if i == 0 {
		return "", false
	}
	return list[i-1].value, list[i-1].defined
}

// keywords are never replaced by a define, because Kamailio's scanner knows
// them; only those matter that this package reads itself.
var keywords = map[string]bool{
	"include_file": true, "import_file": true, "modparam": true, "modparamx": true,
	"loadmodule": true, "loadmodulex": true, "loadpath": true, "mpath": true, "listen": true, "alias": true,
	"port": true, "advertise": true, "ADVERTISE": true, "virtual": true,
	"udp": true, "UDP": true, "tcp": true, "TCP": true, "tls": true, "TLS": true, "sctp": true, "SCTP": true,
	"route": true, "request_route": true, "failure_route": true, "onreply_route": true, "reply_route": true,
	"branch_route": true, "onsend_route": true, "event_route": true,
}

func (l *lexer) pos() Pos { return Pos{l.src.name, l.src.line} }

// peek is the k-th byte ahead in the current file, -1 after its end.
func (l *lexer) peek(k int) int {
	s := l.src
	if n := len(s.back); k < n {
		return int(s.back[n-1-k])
	} else if k = s.off + k - n; k < len(s.data) {
		return int(s.data[k])
	}
	return -1
}

// take reads a byte; the caller has seen by peek that there is one.
func (l *lexer) take() byte {
	s := l.src
	if n := len(s.back); n > 0 {
		c := s.back[n-1]
		s.back = s.back[:n-1]
		return c
	}
	c := s.data[s.off]
	s.off++
	if c == '\n' {
		s.line++
	}
	return c
}

func (l *lexer) drop(n int) {
	for range n {
		l.take()
	}
}

// blank reads a byte that only sets tokens apart.
func (l *lexer) blank() {
	l.take()
	l.apart = true
}

func (l *lexer) token(kind byte, text string, at Pos) {
	span := Span{l.src.name, l.from, l.src.off}
	if l.put {
		span = l.src.use
	}
	l.toks = append(l.toks, token{Token{Kind: kind, Text: text, Pos: at, Span: span, Adjoins: !l.apart && len(l.toks) > 0}, l.put})
	l.apart = false
	l.size += len(text) + 1
}

// run reads everything from the main file to its end.
func (l *lexer) run(name string, data []byte) error {
	if err := l.push(name, data, Pos{File: name}); err != nil {
		return err
	}
	for {
		if l.size > maxBytes {
			return fail(l.pos(), "", "the configuration is longer than %d bytes", maxBytes)
		}
		c := l.peek(0)
		if c < 0 {
			if len(l.srcs) == 1 {
				break
			}
			l.srcs = l.srcs[:len(l.srcs)-1]
			l.src = l.srcs[len(l.srcs)-1]
			l.apart = true
			continue
		}
		if err := l.next(byte(c)); err != nil {
			return err
		}
	}
	if err := l.closed(); err != nil {
		return err
	}
	l.toks = append(l.toks, token{Token: Token{Kind: tEOF, Pos: l.pos()}})
	for i := range l.toks {
		l.settle(&l.toks[i])
	}
	return nil
}

func (l *lexer) skipping() bool {
	for _, c := range l.conds {
		if !c.on {
			return true
		}
	}
	return false
}

func (l *lexer) next(c byte) error {
	l.from, l.put = l.src.off, len(l.src.back) > 0
	d := l.peek(1)
	if (c == '#' || c == '!') && d == '!' {
		return l.directive()
	}
	if c == '#' {
		l.plainEndif()
	}
	switch {
	case l.skipping():
		l.skippedModule()
		l.blank()
	case c == '#', c == '/' && d == '/':
		l.lineComment()
	case c == '/' && d == '*':
		return l.blockComment()
	case c == '"' || c == '\'':
		return l.str(c)
	case (c == '$' || c == '@') && (isWord(d) || d == '('):
		return l.variable()
	case isWord(int(c)):
		return l.word()
	case c == unknownMark[0] && l.put:
		l.unknownWord()
	case c <= ' ' || c >= 0x7f: // Kamailio ignores bytes that it doesn't know
		l.blank()
	default:
		at := l.pos()
		l.token(l.take(), string(c), at)
		if n := len(l.toks); c == '[' && n > 1 && l.toks[n-2].Kind == tWord && l.toks[n-2].Text == "event_route" {
			return l.eventName()
		}
	}
	return nil
}

var loadForm = regexp.MustCompile(`^loadmodule\s*\(?\s*["']([^"'\n]+)["']`)

// skippedModule keeps a loadmodule line in text that doesn't count, if it begins
// a line.
func (l *lexer) skippedModule() {
	s := l.src
	if len(s.back) > 0 || s.data[s.off] != 'l' {
		return
	}
	begin := s.off
	for begin > 0 && isBlank(int(s.data[begin-1])) {
		begin--
	}
	if begin > 0 && s.data[begin-1] != '\n' {
		return
	}
	m := loadForm.FindSubmatch(s.data[s.off:min(len(s.data), s.off+maxSubst)])
	if m == nil {
		return
	}
	skipped := Skipped{Module: Module{Name: moduleName(string(m[1])), Pos: l.pos(), Span: Span{s.name, s.off, s.off + len(m[0])}}}
	for _, c := range l.conds {
		if !c.on {
			skipped.Within = append(skipped.Within, Condition{c.what, c.alt, c.pos})
		}
	}
	l.cfg.Skipped = append(l.cfg.Skipped, skipped)
}

func isWord(c int) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isBlank(c int) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\b' }

func (l *lexer) lineComment() {
	l.apart = true
	for c := l.peek(0); c >= 0 && c != '\n'; c = l.peek(0) {
		l.take()
	}
}

// blockComment reads a comment; they nest.
func (l *lexer) blockComment() error {
	at := l.pos()
	l.apart = true
	for depth := 0; ; {
		switch c, d := l.peek(0), l.peek(1); {
		case c < 0:
			return fail(at, "close it with */ (comments nest)", "comment is never closed")
		case c == '/' && d == '*':
			depth++
			l.drop(2)
		case c == '*' && d == '/':
			depth--
			l.drop(2)
			if depth == 0 {
				return nil
			}
		default:
			l.blank()
		}
	}
}

// str reads a string; strings in double quotes that follow each other with
// nothing but space between are one.
func (l *lexer) str(q byte) error {
	at := l.pos()
	var val []byte
	n := 1    // bytes read
	end := -1 // of the value, before a NUL: the rest is nothing to Kamailio
	nul := func() {
		if len(val) > 0 && val[len(val)-1] == 0 && end < 0 {
			end = len(val) - 1
		}
	}
	l.take()
	for {
		c := l.peek(0)
		if c < 0 {
			return fail(at, l.quoteHint(q), "string is never closed")
		}
		if n++; n > maxString {
			return fail(at, "is a closing quote missing?", "string is longer than %d bytes", maxString)
		}
		put := len(l.src.back) > 0
		l.take()
		switch {
		case byte(c) == q:
			if !l.joins(q) {
				if end >= 0 {
					val = val[:end]
				}
				s, err := l.substitute(string(val), at)
				if err != nil {
					return err
				}
				l.token(tString, s, at)
				l.loaded()
				return nil
			}
		case c == '\\' && q == '"':
			var more int
			val, more = l.escape(val)
			l.drop(more)
			n += more
			nul()
		default:
			if val = append(val, byte(c)); !put { // a define's may be a mark
				nul()
			}
		}
	}
}

// joins steps into the string in double quotes that follows with nothing but
// space between.
func (l *lexer) joins(q byte) bool {
	n := 0
	for isBlank(l.peek(n)) || l.peek(n) == '\n' {
		n++
	}
	if q != '"' || l.peek(n) != '"' {
		return false
	}
	l.drop(n + 1)
	return true
}

// quoteHint is what to do about a string that is never closed.
func (l *lexer) quoteHint(q byte) string {
	for _, t := range l.toks {
		if t.Kind == tString && strings.Contains(t.Text, "\n") {
			return "close it with " + string(q) + ", or the one at " + t.Pos.String() + ", which goes over more than one line"
		}
	}
	return "close it with " + string(q)
}

// loaded defines MOD_name once the name of a module has been read.
func (l *lexer) loaded() {
	n := len(l.toks) - 1
	name := l.toks[n].Text
	if n > 0 && l.toks[n-1].Kind == '(' {
		n--
	}
	if n < 1 || l.toks[n-1].Kind != tWord || l.toks[n-1].Text != "loadmodule" && l.toks[n-1].Text != "loadmodulex" {
		return
	}
	if l.toks[n-1].Text == "loadmodulex" {
		name, _ = l.evaluate(name, l.toks[n].Pos, n)
	}
	if name = "MOD_" + moduleName(name); l.defs[name] == "" {
		l.setDefine(name, "")
	}
}

// escape reads what follows a backslash within double quotes and says how many
// bytes that was; of an unknown escape the backslash is kept.
func (l *lexer) escape(val []byte) ([]byte, int) {
	c := l.peek(0)
	switch c {
	case '\n':
		return val, 1
	case '"', '\\':
		return append(val, byte(c)), 1
	case 'n', 'r', 't', 'a':
		return append(val, "\n\r\t\a"[strings.IndexByte("nrta", byte(c))]), 1
	case 'x':
		if n := l.digits(1, 2, 16); n > 0 {
			return append(val, l.number(1, n, 16)), 1 + n
		}
	}
	if n := l.digits(0, 3, 8); n > 1 {
		return append(val, l.number(0, n, 8)), n
	}
	return append(val, '\\'), 0
}

// digits counts up to limit digits of that base from the k-th byte ahead.
func (l *lexer) digits(k, limit, base int) int {
	n := 0
	for n < limit && digit(l.peek(k+n)) < base {
		n++
	}
	return n
}

func (l *lexer) number(k, n, base int) byte {
	v := 0
	for i := range n {
		v = v*base + digit(l.peek(k+i))
	}
	return byte(v)
}

func digit(c int) int {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 99
}

// variable reads a pseudo-variable or select: between its parentheses quotes,
// braces and # are plain characters, and no define is looked for.
func (l *lexer) variable() error {
	at := l.pos()
	b := []byte{l.take()}
	for isWord(l.peek(0)) || l.peek(0) == '.' {
		b = append(b, l.take())
	}
	for depth := 0; l.peek(0) == '(' || depth > 0; {
		c := l.peek(0)
		switch c {
		case -1:
			return fail(at, "close its parenthesis", "variable is never closed")
		case '(':
			depth++
		case ')':
			depth--
		}
		if b = append(b, l.take()); depth == 0 {
			break
		}
		if len(b) > maxString {
			return fail(at, "close its parenthesis", "variable is longer than %d bytes", maxString)
		}
	}
	l.token(tVar, string(b), at)
	return nil
}

// eventName reads up to the bracket after "event_route[": the name is taken as
// it stands, quotes around it are ignored.
func (l *lexer) eventName() error {
	at := l.pos()
	var b []byte
	for c := l.peek(0); c != ']'; c = l.peek(0) {
		if c < 0 || c == '\n' {
			return fail(at, "close it with ]", "name of the event route is never closed")
		}
		b = append(b, l.take())
	}
	name := strings.Trim(string(b), " \t\r\"'")
	if name == "" || strings.ContainsAny(name, " \t\"'") {
		return fail(at, "write it without space, as in event_route[siptrace:msg]", "name of the event route is malformed")
	}
	l.token(tEvent, name, at)
	return nil
}

func (l *lexer) word() error {
	at, ahead := l.pos(), len(l.src.back)
	n := 0
	for isWord(l.peek(n)) {
		n++
		if n > maxString {
			return fail(at, "", "name is longer than %d bytes", maxString)
		}
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = l.take()
	}
	w := string(b)
	if w == "include_file" || w == "import_file" {
		return l.include(w, at)
	}
	if !keywords[w] && digit(int(w[0])) > 9 {
		if v, there := l.defs[w]; there {
			return l.expand(w, v, ahead, at)
		}
	}
	l.token(tWord, w, at)
	return nil
}

// unknownWord reads the mark that stands for a value in a define.
func (l *lexer) unknownWord() {
	at, b := l.pos(), []byte{l.take()}
	for c := l.peek(0); c >= 0 && len(l.src.back) > 0; c = l.peek(0) {
		if b = append(b, l.take()); byte(c) == unknownMark[0] {
			break
		}
	}
	l.token(tWord, string(b), at)
}

// expand puts the value of a define before what is still to be read. ahead is
// what was waiting when the name began: a define whose value reaches up to
// there is still being read.
func (l *lexer) expand(name, value string, ahead int, at Pos) error {
	s := l.src
	for len(s.open) > 0 && s.open[len(s.open)-1].base >= ahead {
		s.open = s.open[:len(s.open)-1]
	}
	for _, e := range s.open {
		if e.name == name {
			return fail(at, "give one of the defines a value of its own", "define %s contains itself", name)
		}
	}
	if l.expands++; l.expands > maxExpands || len(s.back)+len(value) > maxString {
		return fail(at, "do the values of defines contain each other?", "too much to put in for define %s", name)
	}
	if ahead == 0 {
		s.use = Span{s.name, s.off - len(name), s.off}
	}
	s.open = append(s.open, expansion{name, len(s.back)})
	for i := len(value) - 1; i >= 0; i-- {
		s.back = append(s.back, value[i])
	}
	return nil
}

// include opens the file named after include_file or import_file.
func (l *lexer) include(word string, at Pos) error {
	for isBlank(l.peek(0)) || l.peek(0) == '\n' {
		l.blank()
	}
	hint := "write " + word + " \"file.cfg\", without parentheses; a define isn't taken here"
	if l.peek(0) != '"' {
		return fail(at, hint, "%s wants a file name in double quotes", word)
	}
	l.take()
	var b []byte
	for c := l.peek(0); c != '"'; c = l.peek(0) {
		if c < 0 || c == '\n' || len(b) > maxString {
			return fail(at, hint, "file name after %s is never closed", word)
		}
		b = append(b, l.take())
	}
	l.take()
	name, _, _ := strings.Cut(string(b), unknownMark) // where Kamailio's string ends
	file, err := l.substitute(name, at)
	if err != nil {
		return err
	}
	if strings.Contains(file, unknownMark) {
		return unresolved(at, "the name of the included file", l.reason(file))
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(l.src.name), file)
	}
	data, err := l.opt.ReadFile(file)
	switch {
	case err == nil:
		return l.push(file, data, at)
	case word == "import_file" && errors.Is(err, fs.ErrNotExist):
		return nil
	}
	hint = "is the path right, seen from the file that includes it? import_file skips a file that isn't there"
	if !errors.Is(err, fs.ErrNotExist) {
		hint = "make it readable for siptraced, as it is for Kamailio"
	}
	return &Error{Pos: at, Msg: "can't read the included file", Hint: hint, Err: err}
}

func (l *lexer) push(name string, data []byte, at Pos) error {
	if len(data) > maxBytes {
		return fail(at, "", "file %s has %d bytes, more than %d", name, len(data), maxBytes)
	}
	if len(l.srcs) > maxDepth {
		return fail(at, "does a file include itself?", "files include each other more than %d deep", maxDepth)
	}
	if l.files++; l.files > maxFiles {
		return fail(at, "", "more than %d files are included", maxFiles)
	}
	l.src = &source{name: name, data: data, line: 1}
	l.srcs = append(l.srcs, l.src)
	l.cfg.Files = append(l.cfg.Files, name)
	l.apart = true
	return nil
}

// ParseInt reads a number as Kamailio's scanner does: 12, 0x1f, 017, 101b.
// What isn't a number is a name (ok false); too large a number is an error.
func ParseInt(s string) (v int64, ok bool, err error) {
	base, bits, d := 10, 31, s
	switch {
	case strings.HasPrefix(s, "0x"):
		base, bits, d = 16, 32, s[2:]
	case len(s) > 1 && s[len(s)-1] == 'b' && strings.Trim(s[:len(s)-1], "01") == "":
		base, bits, d = 2, 32, s[:len(s)-1]
	case len(s) > 1 && s[0] == '0':
		base, bits, d = 8, 32, s[1:]
	}
	u, err := strconv.ParseUint(d, base, bits)
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return 0, false, nil
	case err != nil:
		return 0, true, errors.New("number doesn't fit 32 bits")
	}
	return int64(int32(u)), true, nil // 0xffffffff is -1, as in an int
}
