package script

import (
	"bytes"
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

var transformNames = []string{
	"s.len", "s.int", "s.tolower", "s.toupper", "s.substr", "s.select", "s.strip", "s.striptail", "s.trim", "s.ltrim", "s.rtrim", "s.replace", "s.rm",
	"uri.user", "uri.host", "uri.port", "uri.params", "uri.param", "uri.transport", "uri.scheme",
	"nameaddr.uri", "nameaddr.name", "nameaddr.len", "tobody.uri", "tobody.tag", "tobody.user", "tobody.host",
	"param.value", "param.in", "param.name", "param.valueat", "param.count",
}

var empty = value{s: []byte{}, kind: isStr}

// notNil is text that may be absent: "" then, as transformations have it.
func notNil(b []byte) value {
	if b == nil {
		return empty
	}
	return str(b)
}

func transformation(name, arg string) (transform, *problem) {
	args := strings.Split(arg, ",")
	argument := func(i int) (int, bool) {
		if i >= len(args) {
			return 0, false
		}
		n, err := strconv.Atoi(strings.TrimSpace(args[i]))
		return n, err == nil
	}
	class, f, _ := strings.Cut(name, ".")
	switch class {
	case "uri":
		return uriTransformation(f, strings.TrimSpace(arg))
	case "param":
		return paramTransformation(f, args)
	}
	switch name {
	case "nameaddr.len":
		return func(m *Message, v value) value {
			b := m.text(v)
			display, uri, _ := address(b, false)
			if n := len(display) + len("<") + len(uri) + len(">"); n <= len(b) && b[len(display)] == '<' { // up to the bracket
				b = b[:n]
			}
			return integer(int32(len(b)))
		}, nil
	case "s.len":
		return func(m *Message, v value) value { return integer(int32(len(m.text(v)))) }, nil
	case "s.int":
		return func(m *Message, v value) value {
			n, ok := number(m.text(v))
			if !ok {
				return value{}
			}
			return integer(n)
		}, nil
	case "s.tolower":
		return letters(false), nil
	case "s.toupper":
		return letters(true), nil
	case "s.trim":
		return cut(func(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }), nil
	case "s.ltrim":
		return cut(func(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }), nil
	case "s.rtrim":
		return cut(func(b []byte) []byte { return bytes.TrimRight(b, " \t\r\n") }), nil
	case "s.substr":
		from, ok1 := argument(0)
		n, ok2 := argument(1)
		if !ok1 || !ok2 || n < 0 {
			return nil, refuse("write {s.substr,offset,length}; length 0 is up to the end", "{%s,%s} is malformed", name, arg)
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
	case "s.strip", "s.striptail":
		n, ok := argument(0)
		if !ok || n < 0 {
			return nil, refuse("write {"+name+",length}", "{%s,%s} is malformed", name, arg)
		}
		if name == "s.strip" {
			return cut(func(b []byte) []byte { return b[min(n, len(b)):] }), nil
		}
		return cut(func(b []byte) []byte { return b[:max(0, len(b)-n)] }), nil
	case "s.select":
		n, ok := argument(0)
		_, sep, found := strings.Cut(arg, ",")
		if !ok || !found || sep == "" {
			return nil, refuse("write {s.select,index,separator}", "{%s,%s} is malformed", name, arg)
		}
		return cut(func(b []byte) []byte { return field(b, n, sep[0]) }), nil
	case "s.replace":
		old, repl, ok := strings.Cut(arg, ",")
		if !ok || old == "" {
			return nil, refuse("write {s.replace,old,new}", "{%s,%s} is malformed", name, arg)
		}
		return replace([]byte(old), []byte(repl)), nil
	case "s.rm":
		if arg == "" {
			return nil, refuse("write {s.rm,text}", "{%s,%s} is malformed", name, arg)
		}
		return replace([]byte(arg), nil), nil
	case "nameaddr.uri":
		return cut(func(b []byte) []byte { _, uri, _ := address(b, false); return uri }), nil
	case "nameaddr.name":
		return cut(func(b []byte) []byte { d, _, _ := address(b, false); return d }), nil
	case "tobody.uri":
		return cut(func(b []byte) []byte { _, uri, _ := address(b, true); return uri }), nil
	case "tobody.tag":
		return cut(func(b []byte) []byte {
			_, _, params := address(b, true)
			tag, _ := parameter(params, "tag", ';')
			return tag
		}), nil
	case "tobody.user", "tobody.host":
		return cut(func(b []byte) []byte {
			_, uri, _ := address(b, true)
			u, _ := sipmsg.ParseURI(uri)
			if f == "user" {
				return u.User
			}
			return u.Host
		}), nil
	}
	return nil, unknownTransformation(name)
}

func unknownTransformation(name string) *problem {
	return refuse(nearest(name, transformNames, "known are "+strings.Join(transformNames, ", ")), "transformation {%s} is not run here", name)
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

func uriTransformation(f, arg string) (transform, *problem) {
	part := map[string]func(*sipmsg.URI) []byte{
		"user":      func(u *sipmsg.URI) []byte { return u.User },
		"host":      func(u *sipmsg.URI) []byte { return u.Host },
		"params":    func(u *sipmsg.URI) []byte { return u.Params },
		"scheme":    func(u *sipmsg.URI) []byte { return u.Scheme },
		"transport": func(u *sipmsg.URI) []byte { t, _ := parameter(u.Params, "transport", ';'); return t },
		"param":     func(u *sipmsg.URI) []byte { t, _ := parameter(u.Params, arg, ';'); return t },
		"port":      func(u *sipmsg.URI) []byte { return u.Port },
	}[f]
	switch {
	case part == nil:
		return nil, unknownTransformation("uri." + f)
	case (f == "param") != (arg != ""):
		return nil, refuse("write {uri.param,name}, and the others without a parameter", "{uri.%s} is malformed", f)
	}
	return func(m *Message, v value) value {
		u, ok := sipmsg.ParseURI(m.text(v))
		if !ok {
			return value{}
		}
		p := notNil(part(&u))
		if f == "port" { // a number, 0 and without text where there is none
			n, _ := number(p.s)
			return value{s: p.s, n: n, kind: isInt}
		}
		return p
	}, nil
}

func paramTransformation(f string, args []string) (transform, *problem) {
	want, sep := strings.TrimSpace(args[0]), byte(';')
	if f == "count" {
		args = append([]string{""}, args...)
		if want != "" {
			sep = want[0]
		}
	} else if want == "" {
		return nil, refuse("write {param."+f+",name}", "{param.%s} needs a parameter", f)
	}
	if len(args) > 1 && f != "count" {
		if len(args) > 2 || len(args[1]) != 1 {
			return nil, refuse("the separator is one character other than a comma", "{param.%s} is malformed", f)
		}
		sep = args[1][0]
	}
	n, err := strconv.Atoi(want)
	switch f {
	case "value":
		return cut(func(b []byte) []byte { v, _ := parameter(b, want, sep); return v }), nil
	case "in":
		return func(m *Message, v value) value {
			_, ok := parameter(m.text(v), want, sep)
			return integer(boolean(ok))
		}, nil
	case "count":
		return func(m *Message, v value) value {
			n := 0
			for b := m.text(v); len(b) > 0; n++ {
				_, _, b = nextParameter(b, sep)
			}
			return integer(int32(n))
		}, nil
	case "name", "valueat":
		if err != nil {
			return nil, refuse("write {param."+f+",index}", "{param.%s} is malformed", f)
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
					if f == "name" {
						return name
					}
					return v
				}
			}
			return nil
		}), nil
	}
	return nil, unknownTransformation("param." + f)
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
