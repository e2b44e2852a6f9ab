package migrate

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// edit puts text in the place of bytes of a file.
type edit struct {
	from, to int
	text     string
}

// move is what becomes of a parameter in kamailio.cfg.
func move(name string) siptrace.Move {
	s, err := siptrace.Lookup(name)
	if err != nil {
		return siptrace.Changes
	}
	return s.Moves
}

// forced are the proxy's new values, in the order in which they are written.
func (p *Plan) forced() []kamcfg.Param {
	n := func(name string, v int64) kamcfg.Param {
		return kamcfg.Param{Name: name, Value: kamcfg.Value{Int: v, IsInt: true}}
	}
	hep := n("hep_mode_on", 1)
	if p.relay {
		hep.Value.Int = 0
	}
	out := []kamcfg.Param{
		{Name: "duplicate_uri", Value: kamcfg.Value{Str: p.listen.uri()}},
		hep, n("trace_to_database", 0),
	}
	if len(p.apart) == 0 {
		// Else the version is that of the collectors that the proxy sends to by itself.
		out = slices.Insert(out, 2, n("hep_version", 3))
	}
	if p.core {
		out = append(out, n("trace_mode", 1))
	}
	if p.core && !p.script && p.sinks.db && !p.params.TraceToDatabase && p.params.TraceSLAcks {
		// trace_mode has them anyhow; without trace_to_database there was no
		// second row.
		out = append(out, n("trace_sl_acks", 0))
	}
	return out
}

// localHere says that trace_local_ip stays in the proxy: with trace_mode it holds
// for some messages only, which the proxy tells apart. The module breaks HEP with
// an address that lacks the protocol.
func (p *Plan) localHere() bool {
	_, err := siptrace.ParseEndpoint(p.params.TraceLocalIP)
	proto, _, _ := strings.Cut(p.params.TraceLocalIP, ":")
	_, known := siptrace.ParseProto(proto)
	return p.core && err == nil && known
}

// change works out the edits.
func (p *Plan) change() {
	var anchor kamcfg.Span // after it the new lines go
	for _, m := range p.cfg.Modules {
		if m.Name == "siptrace" {
			anchor = m.Span
		}
	}
	here := map[string]bool{} // set where we can change it
	marked := false
	forced := p.forced()
	for _, par := range p.cfg.Params {
		if !par.For("siptrace") || par.Span.File == "" {
			continue
		}
		anchor = par.Span
		if par.Module != "siptrace" {
			continue
		}
		if move(par.Name) == siptrace.Leaves && (par.Name != "trace_local_ip" || !p.localHere()) {
			p.remove(par.Span)
			continue
		}
		for _, f := range forced {
			if f.Name != par.Name {
				continue
			}
			here[f.Name] = true
			if f.Name == "duplicate_uri" && !marked {
				marked = true
				p.add(par.Span.File, lineStart(p.files[par.Span.File], par.Span.From), marker+p.eol(par.Span.File))
			}
			if par.Value != f.Value {
				p.put(par.Span.File, edit{par.ValueSpan.From, par.ValueSpan.To, f.Value.String()})
			}
		}
	}
	p.insert(anchor, forced, here, marked)
	for _, c := range p.calls {
		if _, named := c.address(); named && !p.leftAlone(c) {
			a := c.args[0]
			if from, to := a[0].Span, a[len(a)-1].Span; from.File == to.File {
				p.put(from.File, edit{from.From, to.To, kamcfg.Value{Str: p.listen.uri()}.String()})
			}
		}
	}
	if b, ok := p.eventBlock(); ok && b.Span.File != "" && p.stays == nil {
		p.remove(b.Span)
	}
	for file, edits := range p.edits {
		// patch would take a file away that has become empty.
		if left := result(p.files[file], edits); len(bytes.TrimSpace(left)) == 0 {
			p.add(file, len(p.files[file]), "# moved to siptraced.yaml"+p.eol(file))
		}
	}
	p.root()
}

// result is a file after its edits.
func result(data []byte, edits []edit) []byte {
	var out bytes.Buffer
	at := 0
	for _, e := range ordered(edits) {
		out.Write(data[at:e.from])
		out.WriteString(e.text)
		at = e.to
	}
	out.Write(data[at:])
	return out.Bytes()
}

// ordered are edits as they follow each other; at one place insertions first.
func ordered(edits []edit) []edit {
	edits = slices.Clone(edits)
	slices.SortStableFunc(edits, func(x, y edit) int {
		if x.from != y.from {
			return x.from - y.from
		}
		return x.to - y.to
	})
	return edits
}

// insert adds the lines that the proxy lacks, and those that a line for several
// modules, which stays, would set.
func (p *Plan) insert(anchor kamcfg.Span, forced []kamcfg.Param, here map[string]bool, marked bool) {
	var lines []string
	if !marked {
		lines = append(lines, marker)
	}
	for _, f := range forced {
		last, set := p.set[f.Name]
		shared := set && (last.Module != "siptrace" || last.Span.File == "")
		if !here[f.Name] || shared {
			lines = append(lines, fmt.Sprintf(`modparam("siptrace", %s, %s)`, kamcfg.Value{Str: f.Name}, f.Value))
		}
	}
	file, at := anchor.File, 0
	if file == "" {
		file, at = p.main, len(p.files[p.main])
	} else {
		at = lineEnd(p.files[file], anchor.To)
	}
	eol := p.eol(file)
	text := strings.Join(lines, eol) + eol
	if len(lines) == 0 {
		return
	}
	if data := p.files[file]; at == len(data) && at > 0 && data[at-1] != '\n' {
		text = eol + strings.TrimSuffix(text, eol)
	}
	p.add(file, at, text)
}

// add inserts text.
func (p *Plan) add(file string, at int, text string) { p.put(file, edit{at, at, text}) }

// put notes an edit once: a file can be included twice.
func (p *Plan) put(file string, e edit) {
	if !slices.Contains(p.edits[file], e) {
		p.edits[file] = append(p.edits[file], e)
	}
}

// remove takes a statement away, with its lines where it stands alone on them.
func (p *Plan) remove(s kamcfg.Span) {
	data := p.files[s.File]
	from, to := lineStart(data, s.From), s.To
	for to < len(data) && strings.IndexByte(" \t\r;", data[to]) >= 0 {
		to++
	}
	rest := bytes.TrimSpace(data[to:lineEnd(data, to)])
	if len(bytes.TrimSpace(data[from:s.From])) > 0 || !restOfLine.Match(rest) {
		p.put(s.File, edit{s.From, to, ""})
		return
	}
	p.put(s.File, edit{from, lineEnd(data, to), ""})
}

// restOfLine is nothing, or one comment.
var restOfLine = regexp.MustCompile(`^(#([^!].*)?|//.*|/\*([^*]|\*[^/])*\*/)?$`)

func (p *Plan) eol(file string) string {
	if i := bytes.IndexByte(p.files[file], '\n'); i > 0 && p.files[file][i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

func lineStart(data []byte, at int) int { return bytes.LastIndexByte(data[:at], '\n') + 1 }

// lineEnd is where the next line begins.
func lineEnd(data []byte, at int) int {
	if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(data)
}

// root chooses Dir: the main file's, or the one that holds all files changed,
// because patch takes no path with "..".
func (p *Plan) root() {
	p.Dir = filepath.Dir(p.main)
	for file := range p.edits {
		for {
			r, err := filepath.Rel(p.Dir, file)
			if err == nil && r != ".." && !strings.HasPrefix(r, "../") || p.Dir == "/" {
				break
			}
			p.Dir = filepath.Dir(p.Dir)
		}
	}
}

// Patch is a unified diff of each file that changes, for patch -p0 in Dir.
func (p *Plan) Patch() string {
	var b strings.Builder
	if p.Dir != filepath.Dir(p.main) {
		fmt.Fprintf(&b, "Files outside %s change: patch -p0 -d %q\n", filepath.Dir(p.main), p.Dir)
	}
	for i, file := range p.cfg.Files {
		if len(p.edits[file]) == 0 || slices.Contains(p.cfg.Files[:i], file) {
			continue
		}
		name, err := filepath.Rel(p.Dir, file)
		if err != nil {
			name = file
		}
		if strings.ContainsAny(name, " \t") {
			name += "\t" // where the name ends, for patch
		}
		fmt.Fprintf(&b, "--- %s\n+++ %s\n", name, name)
		unified(&b, p.files[file], p.edits[file])
	}
	return b.String()
}

// hunk is lines of a file and those that come in their place.
type hunk struct {
	from, to int // lines, the first is 0
	edits    []edit
	text     []string
}

// unified writes the hunks of a diff with three lines of context.
func unified(b *strings.Builder, data []byte, edits []edit) {
	const context = 3
	old := lines(string(data))
	start := []int{0} // of each line, in bytes
	for _, l := range old {
		start = append(start, start[len(start)-1]+len(l))
	}
	var hunks []hunk
	for _, e := range ordered(edits) {
		h := hunk{edits: []edit{e}}
		var whole bool
		if h.from, whole = slices.BinarySearch(start, e.from); !whole {
			h.from--
		}
		h.to, _ = slices.BinarySearch(start, e.to)
		if n := len(hunks) - 1; n >= 0 && h.from <= hunks[n].to {
			hunks[n].to, hunks[n].edits = max(hunks[n].to, h.to), append(hunks[n].edits, e)
			continue
		}
		hunks = append(hunks, h)
	}
	for i := range hunks {
		h := &hunks[i]
		var text strings.Builder
		at := start[h.from]
		for _, e := range h.edits {
			text.Write(data[at:e.from])
			text.WriteString(e.text)
			at = e.to
		}
		text.Write(data[at:start[h.to]])
		h.text = lines(text.String())
	}
	delta := 0
	for i := 0; i < len(hunks); {
		k := i + 1
		for k < len(hunks) && hunks[k].from-hunks[k-1].to <= 2*context {
			k++
		}
		first, last := max(0, hunks[i].from-context), min(len(old), hunks[k-1].to+context)
		var body strings.Builder
		at, n := first, 0
		for _, h := range hunks[i:k] {
			for _, l := range old[at:h.from] {
				put(&body, ' ', l)
			}
			for _, l := range old[h.from:h.to] {
				put(&body, '-', l)
			}
			for _, l := range h.text {
				put(&body, '+', l)
			}
			n += len(h.text) - (h.to - h.from)
			at = h.to
		}
		for _, l := range old[at:last] {
			put(&body, ' ', l)
		}
		count := last - first
		fmt.Fprintf(b, "@@ -%s +%s @@\n%s", extent(first, count), extent(first+delta, count+n), body.String())
		delta += n
		i = k
	}
}

// extent is the place of lines in a hunk's head; of none it is the line before.
func extent(first, n int) string {
	if n > 0 {
		first++
	}
	return fmt.Sprintf("%d,%d", first, n)
}

func put(b *strings.Builder, sign byte, line string) {
	b.WriteByte(sign)
	b.WriteString(line)
	if !strings.HasSuffix(line, "\n") {
		b.WriteString("\n\\ No newline at end of file\n")
	}
}

func lines(s string) (out []string) {
	for l := range strings.Lines(s) {
		out = append(out, l)
	}
	return out
}
