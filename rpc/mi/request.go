package mi

import (
	"bytes"
	"errors"
	"strings"
)

// MaxRequest is the length of the longest request taken, in bytes.
const MaxRequest = 65535

// What was dropped, and why.
var (
	ErrNoCommand  = errors.New("mi: first line is not :COMMAND:REPLY_NAME")
	ErrTooLong    = errors.New("mi: request is too long")
	ErrUnfinished = errors.New("mi: request has no empty line at its end")
	ErrParse      = errors.New("mi: stray quote in a parameter")
)

// Param is one parameter. Name is empty unless it was written as name::value.
type Param struct{ Name, Value string }

// Request is one command as it was read.
type Request struct {
	Command   string
	ReplyName string // a file name in the reply folder, not yet judged; empty = none
	Lines     string // the parameter lines, each with its "\n"
}

// Splitter cuts what is read from a command FIFO into requests. The zero value
// is ready. It keeps at most [MaxRequest] bytes beyond one write.
type Splitter struct {
	buf  []byte
	skip bool // dropping up to the end of a request
	mid  bool // while skipping: the beginning of the line in buf is gone
}

// Write adds what was read. Clients write a request in one call: what begins
// with a first line is a new one, even when a line was left half-written.
func (s *Splitter) Write(p []byte) {
	open := s.mid || len(s.buf) > 0 && s.buf[len(s.buf)-1] != '\n'
	if line, _, whole := bytes.Cut(p, []byte("\n")); open && whole && isFirstLine(line) {
		s.buf = append(s.buf, '\n')
	}
	s.buf = append(s.buf, p...)
}

// Pending reports whether the beginning of a request is waiting for its rest.
func (s *Splitter) Pending() bool { return len(s.buf) > 0 || s.skip }

// Reset forgets what waits for its rest: its writer is not coming back.
func (s *Splitter) Reset() { *s = Splitter{buf: s.buf[:0]} }

// Next returns the next request; ok is false when more bytes are needed. With
// an error the request was dropped; its Command and ReplyName are still told
// where its first line was good.
func (s *Splitter) Next() (r Request, ok bool, err error) {
	for {
		line, whole := s.line()
		if !whole {
			if len(s.buf) <= MaxRequest {
				return Request{}, false, nil
			}
			s.buf, s.mid = s.buf[:0], true
			if s.skip {
				return Request{}, false, nil
			}
			s.skip = true
			return Request{}, true, ErrTooLong
		}
		if s.skip {
			begins := !s.mid && isFirstLine(line)
			s.skip = !begins && (s.mid || len(line) > 0)
			s.mid = false
			if !begins {
				s.take(len(line) + 1)
			}
			continue
		}
		if len(line) == 0 {
			s.take(1)
			continue
		}
		command, name, good := firstLine(line)
		if !good {
			s.skip = true
			s.take(len(line) + 1)
			return Request{}, true, ErrNoCommand
		}
		return s.request(Request{Command: command, ReplyName: name}, len(line)+1)
	}
}

// request finishes r, whose first line takes n bytes.
func (s *Splitter) request(r Request, n int) (Request, bool, error) {
	for end := n; ; {
		i := bytes.IndexByte(s.buf[end:], '\n')
		switch {
		case i < 0 && len(s.buf) <= MaxRequest:
			return Request{}, false, nil
		case i < 0 || end+i > MaxRequest:
			s.skip = true
			s.take(end)
			return r, true, ErrTooLong
		case i == 0:
			r.Lines = string(s.buf[n:end])
			s.take(end + 1)
			return r, true, nil
		case isFirstLine(s.buf[end : end+i]):
			s.take(end)
			return r, true, ErrUnfinished
		}
		end += i + 1
	}
}

// line returns the first line in the buffer without its end.
func (s *Splitter) line() ([]byte, bool) {
	i := bytes.IndexByte(s.buf, '\n')
	if i < 0 {
		return nil, false
	}
	return s.buf[:i], true
}

func (s *Splitter) take(n int) { s.buf = append(s.buf[:0], s.buf[n:]...) }

// firstLine reads ":COMMAND:REPLY_NAME". Blanks and "\r" at its end are dropped,
// here only.
func firstLine(line []byte) (command, name string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimRight(string(line), " \t\r"), ":")
	if !ok {
		return "", "", false
	}
	command, name, ok = strings.Cut(rest, ":")
	return command, name, ok && command != ""
}

// isFirstLine is the stricter form by which a new request is told from a
// parameter of one that was left half-written.
func isFirstLine(line []byte) bool {
	if len(line) == 0 || line[0] != ':' {
		return false
	}
	command, name, ok := firstLine(line)
	return ok && !strings.ContainsFunc(command+name, func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
	})
}

// Params reads the parameter lines: blanks around a value are dropped unless it
// is quoted, name:: before it names it, and a quoted value may go over several
// lines. The error is [ErrParse] or nil.
func (r Request) Params() ([]Param, error) {
	var params []Param
	for rest := r.Lines; rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if line = trim(line); line == "" {
			continue
		}
		var p Param
		if line[0] != '"' {
			name, value, named := strings.Cut(line, "::")
			if named {
				p.Name, line = trim(name), trim(value)
			}
			if strings.Contains(name, `"`) {
				return nil, ErrParse
			}
		}
		if line == "" || line[0] != '"' {
			if strings.Contains(line, `"`) {
				return nil, ErrParse
			}
			p.Value = line
			params = append(params, p)
			continue
		}
		var ok bool
		if p.Value, rest, ok = quoted(line[1:], rest); !ok {
			return nil, ErrParse
		}
		params = append(params, p)
	}
	return params, nil
}

// quoted reads a value up to its closing quote, in line and, when it is not
// there, in the lines after it.
func quoted(line, rest string) (value, after string, ok bool) {
	var b strings.Builder
	for {
		i := strings.IndexByte(line, '"')
		switch {
		case i > 0 && line[i-1] == '\\':
			b.WriteString(line[:i-1] + `"`)
			line = line[i+1:]
		case i >= 0:
			b.WriteString(line[:i])
			return b.String(), rest, trim(line[i+1:]) == ""
		case rest == "":
			return "", "", false
		default:
			b.WriteString(line + "\n")
			line, rest, _ = strings.Cut(rest, "\n")
		}
	}
}

func trim(s string) string { return strings.Trim(s, " \t\v\f\r") }
