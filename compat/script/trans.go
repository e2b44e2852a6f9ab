package script

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"siptraced/compat/sipmsg"
)

// transform changes a value; $null stays $null.
type transform func(m *Message, v value) value

// transformations puts {class.name,parameter}... behind a getter.
func transformations(get func(*Message) value, s, raw string) (func(*Message) value, *problem) {
	for s != "" {
		end := strings.IndexByte(s, '}')
		if s[0] != '{' || end < 0 {
			return nil, refuse("write $(name{class.function})", "transformation of %s is malformed", raw)
		}
		name, arg, _ := strings.Cut(s[1:end], ",")
		name = strings.TrimSpace(name)
		if strings.IndexByte(arg, '$') >= 0 {
			return nil, refuse("write the value itself", "{%s} of %s has a parameter that changes", name, raw)
		}
		f, why := transformation(name, arg)
		if why != nil {
			return nil, why
		}
		before := get
		get = func(m *Message) value {
			v := before(m)
			if v.kind == isNull {
				return v
			}
			return f(m, v)
		}
		s = strings.TrimSpace(s[end+1:])
	}
	return get, nil
}

var empty = value{s: []byte{}, kind: isStr}

// notNil is text that may be absent: "" then, as transformations have it.
func notNil(b []byte) value {
	if b == nil {
		return empty
	}
	return str(b)
}

// maker makes a transformation of what stands behind the comma after its name.
type maker func(name, arg string) (transform, *problem)

func always(t transform) maker {
	return func(string, string) (transform, *problem) { return t, nil }
}

func piece(f func([]byte) []byte) maker { return always(cut(f)) }

// transforms are the transformations by their names.
func transforms() map[string]maker {
	return map[string]maker{
		"s.len":       always(func(m *Message, v value) value { return integer(int32(len(m.text(v)))) }),
		"s.int":       always(wholeNumber),
		"s.tolower":   always(letters(false)),
		"s.toupper":   always(letters(true)),
		"s.trim":      piece(func(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }),
		"s.ltrim":     piece(func(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }),
		"s.rtrim":     piece(func(b []byte) []byte { return bytes.TrimRight(b, " \t\r\n") }),
		"s.substr":    substring,
		"s.strip":     strip(func(b []byte, n int) []byte { return b[min(n, len(b)):] }),
		"s.striptail": strip(func(b []byte, n int) []byte { return b[:max(0, len(b)-n)] }),
		"s.select":    selected,
		"s.replace":   replaced,
		"s.rm":        removed,

		"nameaddr.len":  always(addressLength),
		"nameaddr.uri":  piece(func(b []byte) []byte { _, uri, _ := address(b, false); return uri }),
		"nameaddr.name": piece(func(b []byte) []byte { d, _, _ := address(b, false); return d }),
		"tobody.uri":    piece(func(b []byte) []byte { _, uri, _ := address(b, true); return uri }),
		"tobody.tag":    piece(toTag),
		"tobody.user":   piece(func(b []byte) []byte { return toBodyURI(b).User }),
		"tobody.host":   piece(func(b []byte) []byte { return toBodyURI(b).Host }),

		"uri.user":      ofURI(func(u *sipmsg.URI) []byte { return u.User }),
		"uri.host":      ofURI(func(u *sipmsg.URI) []byte { return u.Host }),
		"uri.port":      uriPort,
		"uri.params":    ofURI(func(u *sipmsg.URI) []byte { return u.Params }),
		"uri.scheme":    ofURI(func(u *sipmsg.URI) []byte { return u.Scheme }),
		"uri.transport": ofURI(func(u *sipmsg.URI) []byte { t, _ := parameter(u.Params, "transport", ';'); return t }),
		"uri.param":     uriParam,

		"param.value":   paramValue,
		"param.in":      paramIn,
		"param.name":    paramAt(func(name, _ []byte) []byte { return name }),
		"param.valueat": paramAt(func(_, v []byte) []byte { return v }),
		"param.count":   paramCount,
	}
}

func transformation(name, arg string) (transform, *problem) {
	all := transforms()
	if f, ok := all[name]; ok {
		return f(name, arg)
	}
	known := slices.Sorted(maps.Keys(all))
	return nil, refuse(nearest(name, known, "known are "+strings.Join(known, ", ")), "transformation {%s} is not run here", name)
}

// whole reads the i-th of several parameters as a number.
func whole(arg string, i int) (int, bool) {
	args := strings.Split(arg, ",")
	if i >= len(args) {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(args[i]))
	return n, err == nil
}

func malformed(usage, name, arg string) *problem {
	return refuse("write "+usage, "{%s,%s} is malformed", name, arg)
}

func wholeNumber(m *Message, v value) value {
	n, ok := number(m.text(v))
	if !ok {
		return value{}
	}
	return integer(n)
}

func substring(name, arg string) (transform, *problem) {
	from, ok1 := whole(arg, 0)
	n, ok2 := whole(arg, 1)
	if !ok1 || !ok2 || n < 0 {
		return nil, malformed("{s.substr,offset,length}; length 0 is up to the end", name, arg)
	}
	return func(m *Message, v value) value {
		b, at := m.text(v), from
		if at < 0 {
			at += len(b)
		}
		if at < 0 || at >= len(b) {
			return value{}
		}
		if b = b[at:]; n > 0 && n < len(b) {
			b = b[:n]
		}
		return str(b)
	}, nil
}

func strip(f func(b []byte, n int) []byte) maker {
	return func(name, arg string) (transform, *problem) {
		n, ok := whole(arg, 0)
		if !ok || n < 0 {
			return nil, malformed("{"+name+",length}", name, arg)
		}
		return cut(func(b []byte) []byte { return f(b, n) }), nil
	}
}

func selected(name, arg string) (transform, *problem) {
	n, ok := whole(arg, 0)
	_, sep, found := strings.Cut(arg, ",")
	if !ok || !found || sep == "" {
		return nil, malformed("{s.select,index,separator}", name, arg)
	}
	return cut(func(b []byte) []byte { return field(b, n, sep[0]) }), nil
}

func replaced(name, arg string) (transform, *problem) {
	old, repl, ok := strings.Cut(arg, ",")
	if !ok || old == "" {
		return nil, malformed("{s.replace,old,new}", name, arg)
	}
	return replace([]byte(old), []byte(repl)), nil
}

func removed(name, arg string) (transform, *problem) {
	if arg == "" {
		return nil, malformed("{s.rm,text}", name, arg)
	}
	return replace([]byte(arg), nil), nil
}

// addressLength is the length of a name-addr up to its closing bracket.
func addressLength(m *Message, v value) value {
	b := m.text(v)
	display, uri, _ := address(b, false)
	if n := len(display) + len("<") + len(uri) + len(">"); n <= len(b) && b[len(display)] == '<' {
		b = b[:n]
	}
	return integer(int32(len(b)))
}

func toTag(b []byte) []byte {
	_, _, params := address(b, true)
	tag, _ := parameter(params, "tag", ';')
	return tag
}

func toBodyURI(b []byte) sipmsg.URI {
	_, uri, _ := address(b, true)
	u, _ := sipmsg.ParseURI(uri)
	return u
}

// cut is a transformation that gives a piece of its text.
func cut(f func([]byte) []byte) transform {
	return func(m *Message, v value) value { return notNil(f(m.text(v))) }
}

// letters changes the letter case of ASCII.
func letters(up bool) transform {
	return func(m *Message, v value) value {
		c := m.concat(m.text(v))
		for i, b := range c.s {
			switch {
			case up && b >= 'a' && b <= 'z':
				c.s[i] = b - ('a' - 'A')
			case !up:
				c.s[i] = fold(b)
			}
		}
		return c
	}
}

func replace(old, repl []byte) transform {
	return func(m *Message, v value) value {
		b := m.text(v)
		if !bytes.Contains(b, old) {
			return str(b)
		}
		from := len(m.buf)
		for {
			i := bytes.Index(b, old)
			if i < 0 {
				break
			}
			if !m.room(i + len(repl)) {
				return value{}
			}
			m.buf = append(append(m.buf, b[:i]...), repl...)
			b = b[i+len(old):]
		}
		if !m.room(len(b)) {
			return value{}
		}
		m.buf = append(m.buf, b...)
		return str(m.buf[from:len(m.buf):len(m.buf)])
	}
}

// field is the n-th piece of b between separators, from the end if n is negative.
func field(b []byte, n int, sep byte) []byte {
	if n < 0 {
		for n++; n < 0; n++ {
			i := bytes.LastIndexByte(b, sep)
			if i < 0 {
				return nil
			}
			b = b[:i]
		}
		return b[bytes.LastIndexByte(b, sep)+1:]
	}
	for ; n > 0; n-- {
		i := bytes.IndexByte(b, sep)
		if i < 0 {
			return nil
		}
		b = b[i+1:]
	}
	if i := bytes.IndexByte(b, sep); i >= 0 {
		b = b[:i]
	}
	return b
}

func ofURI(part func(*sipmsg.URI) []byte) maker {
	return func(name, arg string) (transform, *problem) {
		if strings.TrimSpace(arg) != "" {
			return nil, refuse("write {uri.param,name}, and the others without a parameter", "{%s} is malformed", name)
		}
		return uriPart(part), nil
	}
}

func uriPart(part func(*sipmsg.URI) []byte) transform {
	return func(m *Message, v value) value {
		u, ok := sipmsg.ParseURI(m.text(v))
		if !ok {
			return value{}
		}
		return notNil(part(&u))
	}
}

func uriParam(name, arg string) (transform, *problem) {
	want := strings.TrimSpace(arg)
	if want == "" {
		return nil, refuse("write {uri.param,name}, and the others without a parameter", "{%s} is malformed", name)
	}
	return uriPart(func(u *sipmsg.URI) []byte { t, _ := parameter(u.Params, want, ';'); return t }), nil
}

// uriPort is a number, 0 and without text where there is none.
func uriPort(name, arg string) (transform, *problem) {
	get, why := ofURI(func(u *sipmsg.URI) []byte { return u.Port })(name, arg)
	return func(m *Message, v value) value {
		p := get(m, v)
		if p.kind == isNull {
			return p
		}
		n, _ := number(p.s)
		return value{s: p.s, n: n, kind: isInt}
	}, why
}

// paramArguments reads NAME[,separator] or INDEX[,separator].
func paramArguments(name, arg string) (want string, sep byte, why *problem) {
	args := strings.Split(arg, ",")
	want, sep = strings.TrimSpace(args[0]), ';'
	switch {
	case want == "":
		return "", 0, refuse("write {"+name+",name}", "{%s} needs a parameter", name)
	case len(args) > 2 || len(args) == 2 && len(args[1]) != 1:
		return "", 0, refuse("the separator is one character other than a comma", "{%s} is malformed", name)
	case len(args) == 2:
		sep = args[1][0]
	}
	return want, sep, nil
}

func paramValue(name, arg string) (transform, *problem) {
	want, sep, why := paramArguments(name, arg)
	return cut(func(b []byte) []byte { v, _ := parameter(b, want, sep); return v }), why
}

func paramIn(name, arg string) (transform, *problem) {
	want, sep, why := paramArguments(name, arg)
	return func(m *Message, v value) value {
		_, ok := parameter(m.text(v), want, sep)
		return integer(boolean(ok))
	}, why
}

// paramCount takes a separator alone.
func paramCount(_, arg string) (transform, *problem) {
	sep := byte(';')
	if arg, _, _ = strings.Cut(arg, ","); strings.TrimSpace(arg) != "" {
		sep = strings.TrimSpace(arg)[0]
	}
	return func(m *Message, v value) value {
		n := 0
		for b := m.text(v); len(b) > 0; n++ {
			_, _, b = nextParameter(b, sep)
		}
		return integer(int32(n))
	}, nil
}

// paramAt finds a parameter by its number, from the end if that is negative.
func paramAt(part func(name, v []byte) []byte) maker {
	return func(name, arg string) (transform, *problem) {
		want, sep, why := paramArguments(name, arg)
		if why != nil {
			return nil, why
		}
		n, err := strconv.Atoi(want)
		if err != nil {
			return nil, refuse("write {"+name+",index}", "{%s} is malformed", name)
		}
		return cut(func(b []byte) []byte {
			i := n
			if i < 0 {
				for rest := b; len(rest) > 0; i++ {
					_, _, rest = nextParameter(rest, sep)
				}
			}
			for ; len(b) > 0; i-- {
				var name, v []byte
				if name, v, b = nextParameter(b, sep); i == 0 {
					return part(name, v)
				}
			}
			return nil
		}), nil
	}
}

// parameter finds name, in any letter case, in name=value;name=value. The value
// comes without quotes; it is nil where there is none.
func parameter(b []byte, name string, sep byte) (v []byte, ok bool) {
	for len(b) > 0 {
		var k []byte
		if k, v, b = nextParameter(b, sep); bytes.EqualFold(k, []byte(name)) {
			return v, true
		}
	}
	return nil, false
}

func nextParameter(b []byte, sep byte) (name, v, rest []byte) {
	end, quoted := len(b), false
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '\\' && quoted:
			i++
		case b[i] == sep && !quoted:
			end = i
		}
		if end < len(b) {
			break
		}
	}
	rest = b[min(end+1, len(b)):]
	name = b[:end]
	if i := bytes.IndexByte(name, '='); i >= 0 {
		name, v = name[:i], bytes.TrimSpace(name[i+1:])
		if n := len(v); n > 1 && v[0] == '"' && v[n-1] == '"' {
			v = v[1 : n-1]
		}
	}
	return bytes.TrimSpace(name), v, rest
}

// address takes a name-addr apart; without brackets the URI is all of it, or with
// params up to the first semicolon.
func address(b []byte, params bool) (display, uri, after []byte) {
	i := 0
	for quoted := false; i < len(b) && (quoted || b[i] != '<'); i++ {
		switch {
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '\\' && quoted:
			i++
		}
	}
	if i < len(b) {
		display, uri = b[:i], b[i+1:]
		if end := bytes.IndexByte(uri, '>'); end >= 0 {
			uri, after = uri[:end], uri[end+1:]
		}
		return display, uri, bytes.TrimLeft(after, " \t;")
	}
	if semi := bytes.IndexByte(b, ';'); params && semi >= 0 {
		return nil, bytes.TrimSpace(b[:semi]), b[semi+1:]
	}
	return nil, b, nil
}

// Transform applies transformations, "{s.substr,0,2}{s.toupper}", to a text.
func Transform(s, trans string) (string, error) {
	get, why := transformations(func(*Message) value { return text(s) }, trans, trans)
	if why != nil {
		return "", errors.New(why.msg)
	}
	m := &Message{}
	return string(m.text(get(m))), nil
}
