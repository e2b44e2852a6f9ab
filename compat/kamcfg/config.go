package kamcfg

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Pos is a line of a file; lines count from 1, and 0 means the whole file.
type Pos struct {
	File string
	Line int
}

// String is "kamailio.cfg:12".
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// Span is a piece of a file, in bytes, as it stands there before preprocessing.
// The zero value is of what no file has as such: the text of a define.
type Span struct {
	File     string
	From, To int
}

// Error says where the configuration is wrong, how, and what to do about it.
type Error struct {
	Pos  Pos
	Msg  string
	Hint string // the remedy or the nearest known name; may be empty
	Err  error  // the cause where there is one (reading a file)
}

// Error is "kamailio.cfg:12: what is wrong; what to do".
func (e *Error) Error() string {
	s := e.Pos.String() + ": " + e.Msg
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap gives the cause, e.g. fs.ErrNotExist.
func (e *Error) Unwrap() error { return e.Err }

func fail(at Pos, hint, format string, args ...any) *Error {
	return &Error{Pos: at, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// Note is something Kamailio accepts that its author hardly meant.
type Note struct {
	Pos Pos
	Msg string
}

// String is "kamailio.cfg:12: what it is".
func (n Note) String() string { return n.Pos.String() + ": " + n.Msg }

// Value is a string or an integer; yes, on, true, enable and their opposites
// are integers, as Kamailio reads them.
type Value struct {
	Str   string // of a string; of a bare word in a global parameter
	Int   int64  // within 32 bits
	IsInt bool
	// Unresolved is why the value isn't known: it holds a variable that has its value
	// only within Kamailio, and Str has that variable as it is written. An *Error, or
	// nil.
	Unresolved error
}

// Any is the value as an int64 or a string.
func (v Value) Any() any {
	if v.IsInt {
		return v.Int
	}
	return v.Str
}

// String is the value as one would write it in kamailio.cfg.
func (v Value) String() string {
	if v.IsInt {
		return strconv.FormatInt(v.Int, 10)
	}
	return quote(v.Str)
}

// Param is one modparam() line. Module is as written: a POSIX regular
// expression that Kamailio matches against whole module names.
type Param struct {
	Module, Name string
	Value        Value
	Pos          Pos
	Span         Span // of the whole line, to its closing parenthesis
	ValueSpan    Span // of the value, or of the define that stands for it
	// Unresolved is that of the value, or of a name. An *Error, or nil.
	Unresolved error

	match *regexp.Regexp // nil where Module is one plain name
}

// For says whether the line sets a parameter of that module.
func (p Param) For(module string) bool {
	if p.match == nil {
		return p.Module == module
	}
	return p.match.MatchString(module)
}

// Module is one loadmodule line; Name is without directory and ".so".
type Module struct {
	Name string
	Pos  Pos
	Span Span
}

// Skipped is a loadmodule line that doesn't hold, and the conditions that leave it
// out, the outermost first.
type Skipped struct {
	Module
	Within []Condition
}

// Condition is an #!ifdef, #!ifndef or #!ifexp whose text is left out.
type Condition struct {
	Text string // "#!ifdef NAME"
	Else bool   // it is its #!else that is left out
	Pos  Pos
}

// Define is the name that has to be defined for the text to count; "" if that
// isn't what is missing.
func (c Condition) Define() string {
	word := "#!ifdef "
	if c.Else {
		word = "#!ifndef "
	}
	name, ok := strings.CutPrefix(c.Text, word)
	if !ok {
		return ""
	}
	return name
}

// String is "#!ifdef NAME", or "the #!else of #!ifdef NAME".
func (c Condition) String() string {
	if c.Else {
		return "the #!else of " + c.Text
	}
	return c.Text
}

// Global is a core parameter or a "group.name = value" variable.
type Global struct {
	Name  string
	Value Value
	Pos   Pos
}

// Alias is one address of an alias= line. Proto "" is any, Port 0 is any.
type Alias struct {
	Proto, Host string
	Port        int
	Pos         Pos
}

// Route is the body of a route block, as tokens: comments and directives are
// gone, defines are put in, substitutions made, strings in pieces joined.
type Route struct {
	Name   string  // what stands in brackets: "siptrace:msg", "NAME"; or empty
	Pos    Pos     // of the word before it: event_route, route
	Tokens []Token // between the braces
	End    Pos     // of the closing brace
}

// Same reports whether both say the same, wherever they stand.
func (r Route) Same(o Route) bool {
	return r.Name == o.Name && slices.EqualFunc(r.Tokens, o.Tokens, func(a, b Token) bool {
		return a.Kind == b.Kind && a.Text == b.Text && a.Adjoins == b.Adjoins
	})
}

// Block is a route block of any kind.
type Block struct {
	Kind string // the word before it: "request_route", "route", "event_route"
	Route
	Span Span // from that word to the closing brace
}

// Token is a word, string, variable or sign after preprocessing.
type Token struct {
	Kind    byte // Word, String, Variable, or the sign itself
	Text    string
	Pos     Pos
	Span    Span // of the define's use where the token comes from one
	Adjoins bool // nothing stands between it and the token before: "=" and "=" are "=="
	// Unresolved is that of Value.
	Unresolved error
}

// Kinds of Token; the text of a String is its value.
const (
	Word     = tWord
	String   = tString
	Variable = tVar
)

// Config is what a kamailio.cfg says. Lists are in the order of the file.
type Config struct {
	Params      []Param
	Modules     []Module
	Skipped     []Skipped
	Listens     []Listen
	Aliases     []Alias
	Globals     []Global
	EventRoutes []Route
	Routes      []Route // route[NAME], which event routes may call
	Blocks      []Block
	Defines     map[string]string // at the end of the file; without those that hang on an unknown value
	Files       []string          // every file read, in order, the main file first
	Notes       []Note

	ifaces []Interface
	noted  map[Note]bool
}

// Global finds a core parameter; of several settings the last one holds.
func (c *Config) Global(names ...string) (Global, bool) {
	for i := len(c.Globals) - 1; i >= 0; i-- {
		for _, n := range names {
			if c.Globals[i].Name == n {
				return c.Globals[i], true
			}
		}
	}
	return Global{}, false
}

// Settings are the configuration's own variables, "group.name"; of several
// settings the last one holds.
func (c *Config) Settings() map[string]Value {
	out := map[string]Value{}
	for _, g := range c.Globals {
		if strings.Contains(g.Name, ".") {
			out[g.Name] = g.Value
		}
	}
	return out
}

// Loads says whether the file loads a module, by its name without ".so".
func (c *Config) Loads(module string) bool {
	return slices.ContainsFunc(c.Modules, func(m Module) bool { return m.Name == module })
}

// EventRoute finds an event route by its name, e.g. "siptrace:msg".
func (c *Config) EventRoute(name string) (Route, bool) {
	for _, r := range c.EventRoutes {
		if r.Name == name {
			return r, true
		}
	}
	return Route{}, false
}

// note adds a note, once.
func (c *Config) note(at Pos, format string, args ...any) {
	n := Note{at, fmt.Sprintf(format, args...)}
	if c.noted == nil {
		c.noted = map[Note]bool{}
	}
	if !c.noted[n] {
		c.noted[n] = true
		c.Notes = append(c.Notes, n)
	}
}

// quote writes a string so that Kamailio's lexer reads it back.
func quote(s string) string {
	return `"` + quoter.Replace(s) + `"`
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`)
