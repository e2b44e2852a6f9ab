package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// Sources are the places to read.
type Sources struct {
	KamailioCfg string             // --kamailio-cfg
	Kamailio    kamcfg.CommandLine // --define, -l, --kamailio-version
	File        string             // -c
	Set         []string           // --set key=value
	Environ     []string           // os.Environ()
}

// envPrefix begins the environment variables that are read; two underscores
// stand for the dot of a key.
const envPrefix = "SIPTRACED_"

// setting is a value as one of the places has it.
type setting struct {
	name  string // as it is written there; may be the former one
	value any
	text  bool // the value is text, to be read by the key's type
	place string
	by    author
	// lines are the places of the parts of a value from a YAML file, such as
	// "[0].name"; first is the line of the file that a text with several lines begins
	// at, 0 where its lines are not those of the file.
	lines map[string]string
	first int
}

// author is who gave a value.
type author int

// The authors.
const (
	byOperator author = iota // siptraced.yaml, the environment, --set, remote control
	byProxy                  // kamailio.cfg
	byNobody                 // what holds without a kamailio.cfg
)

// settings are values by the present names of their keys.
type settings map[string]setting

// texts are the values as --set has them.
func (s setting) texts(list bool) ([]string, error) {
	var out []string
	switch v := s.value.(type) {
	case []any:
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
	case []string:
		out = v
	default:
		if out = []string{fmt.Sprint(v)}; list {
			out = split(out[0])
		}
	}
	if !list && len(out) != 1 {
		return nil, errors.New("want one value, not a list")
	}
	return out, nil
}

// split takes a list with commas apart.
func split(s string) (out []string) {
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}

// sources are what else the places say.
type sources struct {
	kamailioCfg string
	kamailio    kamcfg.CommandLine
	proxy       *kamcfg.Config // nil: there is no kamailio.cfg
	directories directories
	notes       []string
}

// embedded is what holds when no kamailio.cfg has the module: the main job, without
// any set-up. why is the reason.
func (f *sources) embedded(why string) []setting {
	return []setting{
		{name: module + "db_url", value: f.ownDatabase(), place: f.directories.state.origin(why), by: byNobody},
		{name: module + "trace_on", value: int64(1), place: defaultFor(why), by: byNobody},
	}
}

// ownDatabase is the file for messages of which nobody said where they go.
func (f *sources) ownDatabase() string { return "sqlite://" + f.directories.state.file("siptraced.db") }

// read reads every place. Unknown keys are errors, and joined.
func read(src Sources) (from sources, merged settings, err error) {
	file, err := readYAML(src.File)
	if err != nil {
		return from, nil, err
	}
	set, problems := readSet(src.Set)
	above := slices.Concat(file, readEnviron(src.Environ), set, src.flags())
	from.directories = readDirectories(src.Environ)
	for _, s := range above {
		if err := from.readProxy(s); err != nil {
			problems = append(problems, &Problem{s.place, fmt.Errorf("%s: %w", s.name, err)})
		}
	}
	list := from.embedded("there is no kamailio.cfg")
	if from.kamailioCfg != "" {
		if list, err = from.readKamailio(); err != nil {
			return from, nil, err
		}
		if !from.loadsModule() {
			list = from.embedded("siptrace is not loaded in " + from.kamailioCfg)
		}
	}
	merged = settings{}
	problems = append(problems, merged.merge(append(list, above...))...)
	return from, merged, errors.Join(problems...)
}

// merge takes settings over, later ones winning. A setting under both of its names
// must have one value.
func (m settings) merge(list []setting) (problems []error) {
	present := map[string]string{}
	for _, k := range Keys() {
		present[k.Name] = k.Name
		if k.Old != "" {
			present[k.Old] = k.Name
		}
	}
	for _, s := range list {
		name, ok := present[s.name]
		if !ok {
			problems = append(problems, &Problem{s.place, unknown(s, slices.Sorted(maps.Keys(present)))})
			continue
		}
		if was, ok := m[name]; ok && was.name != s.name && fmt.Sprint(was.value) != fmt.Sprint(s.value) {
			problems = append(problems, &Problem{s.place, fmt.Errorf("%s is set here, and to something else as %s (%s): they are two names of one setting; keep %s", s.name, was.name, was.place, name)})
			continue
		}
		m[name] = s
	}
	return problems
}

// unknown says that nobody knows a setting, with the nearest one.
func unknown(s setting, names []string) error {
	name, err := s.name, fmt.Errorf("there is no setting %q", s.name)
	shown := func(near string) string { return near }
	switch param, ok := strings.CutPrefix(s.name, module); {
	case ok:
		_, err = siptrace.Lookup(param)
		name, names = param, siptrace.Names()
	case strings.HasPrefix(s.place, envPrefix):
		err = errors.New("this environment variable names no setting")
	}
	if strings.HasPrefix(s.place, envPrefix) {
		prefix := strings.TrimSuffix(s.name, name)
		shown = func(near string) string { return envName(prefix + near) }
	}
	if near := kamcfg.Nearest(name, names); near != "" {
		err = fmt.Errorf("%w: did you mean %q?", err, shown(near))
	}
	return err
}

// readYAML reads siptraced.yaml. No path: nothing.
func readYAML(path string) ([]setting, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &Problem{path, fmt.Errorf("can't be read: %w", err)}
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(text), yaml.Parser()); err != nil {
		return nil, &Problem{path, err}
	}
	var doc yamlv3.Node
	if err := yamlv3.Unmarshal(text, &doc); err != nil {
		return nil, &Problem{path, err}
	}
	places, texts := map[string]string{}, map[string]int{}
	if len(doc.Content) > 0 {
		keyPlaces(path, doc.Content[0], "", places, texts)
	}
	return settingsOf(k, func(key string) setting {
		s := setting{place: places[key], lines: map[string]string{}, first: texts[key]}
		for part, place := range places {
			if rest, ok := strings.CutPrefix(part, key+"["); ok {
				s.lines["["+rest] = place
			}
		}
		return s
	}), nil
}

// keyPlaces notes the places of the keys below a node, and of the entries of
// lists, and where texts begin that stand line by line in the file.
func keyPlaces(path string, n *yamlv3.Node, name string, places map[string]string, texts map[string]int) {
	note := func(name string, n *yamlv3.Node) { places[name] = fmt.Sprintf("%s:%d", path, n.Line) }
	switch n.Kind {
	case yamlv3.ScalarNode:
		if n.Style&yamlv3.LiteralStyle != 0 {
			texts[name] = n.Line + 1 // below the line with the |
		}
	case yamlv3.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if name != "" {
				key = name + "." + key
			}
			note(key, n.Content[i])
			keyPlaces(path, n.Content[i+1], key, places, texts)
		}
	case yamlv3.SequenceNode:
		for i, e := range n.Content {
			entry := fmt.Sprintf("%s[%d]", name, i)
			note(entry, e)
			keyPlaces(path, e, entry, places, texts)
		}
	}
}

// settingsOf are the keys that hold a value; a section without any is none.
func settingsOf(k *koanf.Koanf, make func(key string) setting) (out []setting) {
	for _, key := range k.Keys() {
		v := k.Get(key)
		if m, section := v.(map[string]any); section && len(m) == 0 {
			continue
		}
		s := make(key)
		s.name, s.value = key, v
		out = append(out, s)
	}
	return out
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}

// readEnviron reads our part of the environment.
func readEnviron(environ []string) (out []setting) {
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if key, ours := strings.CutPrefix(name, envPrefix); ours {
			key = strings.ToLower(strings.ReplaceAll(key, "__", "."))
			out = append(out, setting{name: key, value: value, text: true, place: name})
		}
	}
	return out
}

// readSet reads --set key=value. The last one of a key wins.
func readSet(list []string) (out []setting, problems []error) {
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			problems = append(problems, &Problem{"--set " + s, errors.New("want key=value")})
			continue
		}
		out = append(out, setting{name: k, value: v, text: true, place: "--set " + k})
	}
	return out, problems
}
