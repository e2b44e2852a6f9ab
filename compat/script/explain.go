package script

import (
	"strconv"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

// Explanation is what one statement did in a run.
type Explanation struct {
	Pos     kamcfg.Pos
	Text    string // the statement, blocks left out
	Outcome string // "true", "= 1", "" for exit and drop
}

// String is "kamailio.cfg:12: if (is_method("REGISTER")) true".
func (e Explanation) String() string {
	return strings.TrimRight(e.Pos.String()+": "+e.Text+" "+e.Outcome, " ")
}

// maxExplained bounds the statements that one explanation lists.
const maxExplained = 1000

// Explain is Run that tells what each statement did, for a dry run. It allocates.
func (p *Program) Explain(m *Message, sip *sipmsg.Message, rec *siptrace.Record) (Result, []Explanation) {
	m.tracing, m.explain = true, nil
	res := p.Run(m, sip, rec)
	list := m.explain
	m.tracing, m.explain = false, nil
	return res, list
}

func (m *Message) note(s *stmt, outcome string) {
	if len(m.explain) < maxExplained {
		m.explain = append(m.explain, Explanation{s.pos, s.String(), outcome})
	}
}

// show writes a value for an explanation, cut where it is long.
func (m *Message) show(v value) string {
	switch v.kind {
	case isNull:
		return "$null"
	case isInt:
		return strconv.Itoa(int(v.n))
	}
	const longest = 80
	if len(v.s) > longest {
		return strconv.Quote(string(v.s[:longest])) + "..."
	}
	return strconv.Quote(string(v.s))
}

// String prints the route as it was understood, each statement with the number
// of its line, and after it the routes that it calls.
func (p *Program) String() string {
	var b strings.Builder
	b.WriteString("event_route[" + p.name + "] {\n")
	writeStmts(&b, p.tree, 1)
	b.WriteString("}\n")
	for _, r := range p.routes {
		b.WriteString("route[" + r.name + "] {\n")
		writeStmts(&b, r.tree, 1)
		b.WriteString("}\n")
	}
	return b.String()
}
