package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// envPrefix begins the environment variables that are read; two underscores
// stand for the dot of a key.
const envPrefix = "SIPTRACED_"

// origin is the place that an effective value comes from.
type origin struct {
	set   bool
	text  bool   // the value is text that has to be read by the key's type
	place string // for people
}

// loader merges the places, and remembers which one each key came from.
type loader struct {
	merged      *koanf.Koanf
	origins     map[string]origin
	kamailioCfg string
	proxy       *kamcfg.Config
	notes       []string
}

// read reads every place. Unknown keys are errors, and joined.
func (l *loader) read(src Sources) error {
	l.merged, l.origins = koanf.New("."), map[string]origin{}

	file, lines, err := readYAML(src.File)
	if err != nil {
		return err
	}
	l.kamailioCfg = src.KamailioCfg
	if l.kamailioCfg == "" && file != nil {
		l.kamailioCfg = file.String("kamailio_cfg")
	}
	var problems []error
	if l.kamailioCfg == "" {
		if err := l.merge(embedded, origin{place: "default, there is no kamailio.cfg"}, nil); err != nil {
			return err
		}
	} else if err := l.readKamailio(l.kamailioCfg); err != nil {
		return err
	}
	if file != nil {
		place := func(key string) string { return fmt.Sprintf("%s:%d", src.File, lines[key]) }
		problems = append(problems, l.known(settings(file), place)...)
		if err := l.mergeKoanf(file, origin{}, place); err != nil {
			return err
		}
	}
	environ, err := l.readEnviron(src.Environ)
	if err != nil {
		return err
	}
	if err := l.mergeKoanf(environ, origin{text: true}, envName); err != nil {
		return err
	}
	sets := map[string]any{}
	for _, s := range src.Set {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			problems = append(problems, &Problem{"--set " + s, errors.New("want key=value")})
			continue
		}
		sets[k] = v
	}
	place := func(key string) string { return "--set " + key }
	keys := make([]string, 0, len(sets))
	for k := range sets {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	problems = append(problems, l.known(keys, place)...)
	if err := l.merge(sets, origin{text: true}, place); err != nil {
		return err
	}
	return errors.Join(problems...)
}

// readYAML reads siptraced.yaml; lines are those of its keys. No path: nil.
func readYAML(path string) (*koanf.Koanf, map[string]int, error) {
	if path == "" {
		return nil, nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, &Problem{path, fmt.Errorf("can't be read: %w", err)}
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(text), yaml.Parser()); err != nil {
		return nil, nil, &Problem{path, err}
	}
	var doc yamlv3.Node
	if err := yamlv3.Unmarshal(text, &doc); err != nil {
		return nil, nil, &Problem{path, err}
	}
	lines := map[string]int{}
	if len(doc.Content) > 0 {
		keyLines(doc.Content[0], "", lines)
	}
	return k, lines, nil
}

func keyLines(n *yamlv3.Node, prefix string, lines map[string]int) {
	if n.Kind != yamlv3.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := prefix + n.Content[i].Value
		lines[name] = n.Content[i].Line
		keyLines(n.Content[i+1], name+".", lines)
	}
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}

// readEnviron reads our part of the environment. A name that is no key is
// noted, not refused: the environment is not ours alone.
func (l *loader) readEnviron(environ []string) (*koanf.Koanf, error) {
	k := koanf.New(".")
	err := k.Load(env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "__", "."))
			if !isKey(key) {
				l.notes = append(l.notes, fmt.Sprintf("environment variable %s names no setting and is ignored", name))
				return "", nil
			}
			return key, value
		},
	}), nil)
	if err != nil {
		return nil, &Problem{"environment", err}
	}
	return k, nil
}

// settings are the keys that hold a value; a section without any is none.
func settings(k *koanf.Koanf) []string {
	return slices.DeleteFunc(k.Keys(), func(name string) bool {
		m, section := k.Get(name).(map[string]any)
		return section && len(m) == 0
	})
}

// known reports the keys that nobody knows, with the nearest one.
func (l *loader) known(names []string, place func(string) string) (problems []error) {
	for _, n := range names {
		if isKey(n) {
			continue
		}
		at := place(n)
		err, names := fmt.Errorf("there is no setting %q", n), allKeys()
		if param, ok := strings.CutPrefix(n, "siptrace."); ok {
			_, err = siptrace.Lookup(param)
			n, names = param, siptrace.Names()
		}
		if near := kamcfg.Nearest(n, names); near != "" {
			err = fmt.Errorf("%w: did you mean %q?", err, near)
		}
		problems = append(problems, &Problem{at, err})
	}
	return problems
}

func isKey(name string) bool {
	if param, ok := strings.CutPrefix(name, "siptrace."); ok {
		_, err := siptrace.Lookup(param)
		return err == nil
	}
	return slices.ContainsFunc(keys, func(k key) bool { return k.name == name })
}

func allKeys() []string {
	var names []string
	for _, k := range keys {
		names = append(names, k.name)
	}
	for _, n := range siptrace.Names() {
		names = append(names, "siptrace."+n)
	}
	return names
}

func (l *loader) merge(values map[string]any, o origin, place func(string) string) error {
	k := koanf.New(".")
	if err := k.Load(confmap.Provider(values, "."), nil); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return l.mergeKoanf(k, o, place)
}

func (l *loader) mergeKoanf(k *koanf.Koanf, o origin, place func(string) string) error {
	for _, key := range settings(k) {
		o.set = true
		if place != nil {
			o.place = place(key)
		}
		l.origins[key] = o
	}
	if err := l.merged.Merge(k); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// get returns a key's last value and its place.
func (l *loader) get(name string) (any, origin) { return l.merged.Get(name), l.origin(name) }

func (l *loader) origin(name string) origin {
	if o, ok := l.origins[name]; ok {
		return o
	}
	return origin{place: "default"}
}
