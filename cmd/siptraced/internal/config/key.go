package config

import (
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"siptraced/compat/siptrace"
)

// Key is one setting.
type Key struct {
	// Name is as siptraced.yaml has it. Old is its former name, which is accepted
	// as well; empty: there is none.
	Name, Old string
	Doc       string
	// List: the value is a list of strings, written with commas in the environment
	// and in --set. Anything else is one text.
	List bool
	// Secret values are not printed.
	Secret bool
	// Restart says why a change needs a restart; empty: it takes effect while the
	// process runs.
	Restart string
	// Remote: remote control can change it too. What names a file is never remote.
	Remote bool

	note string // what check prints behind the value

	access
	// check finds values out of bounds; nil: every value that can be read is good.
	check func(*Config) error
}

// access is how a setting is read and written.
type access struct {
	// get returns the value with its type; values of it are compared with
	// reflect.DeepEqual.
	get func(*Config) any
	// set reads texts: one, or those of a list.
	set func(*Config, []string) error
	// from reads a value as the YAML file has it, in place of set; nil: there is
	// only text.
	from func(*Config, setting) error
	// show is the value for people; nil: as format has it.
	show func(*Config) string
}

// param is a parameter of the module as a key.
func param(s siptrace.Spec) Key {
	name := module + s.Name
	return Key{
		Name: name, Doc: s.Doc, note: s.Note, List: s.Kind == siptrace.StrOrList, Secret: s.Secret, Restart: s.Restart,
		Remote: s.Live() && !s.Secret,
		access: access{
			get: func(c *Config) any { return s.Value(&c.Params) },
			from: func(c *Config, v setting) error {
				if text, ok := v.value.(string); ok && v.text {
					return c.Params.SetText(s.Name, text)
				}
				return c.Params.Set(s.Name, v.value)
			},
			show: func(c *Config) string { return showParam(s, &c.Params) },
		},
	}
}

// showParam is a parameter's value as kamailio.cfg would have it.
func showParam(s siptrace.Spec, p *siptrace.Params) string {
	v := s.Value(p)
	text, ok := v.(string)
	switch {
	case !ok:
		return fmt.Sprint(v)
	case text == "":
		return unset
	case s.Name == "db_url":
		if u, err := siptrace.ParseDBURL(text); err == nil {
			return strconv.Quote(u.Redacted())
		}
	}
	if s.Secret {
		return masked
	}
	return strconv.Quote(text)
}

const (
	unset  = "unset"
	masked = "***" // stands for a secret
)

// text is the value of a key for people.
func (k *Key) text(c *Config) string {
	if k.show != nil {
		return k.show(c)
	}
	text := format(k.get(c))
	if k.Secret && text != unset {
		return masked
	}
	return text
}

// format writes a value as --set takes it.
func format(v any) string {
	text := ""
	switch v := v.(type) {
	case []string:
		text = strings.Join(v, ", ")
	case bool:
		text = "0"
		if v {
			text = "1"
		}
	case time.Duration:
		text = formatDuration(v)
	case fs.FileMode:
		if v != 0 {
			text = fmt.Sprintf("%04o", uint32(v))
		}
	case slog.Level:
		text = strings.ToLower(v.String())
	default:
		text = fmt.Sprint(v)
	}
	if text == "" {
		return unset
	}
	return text
}

// formatDuration leaves out the units that are zero at the end: 24h, not 24h0m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if rest, ok := strings.CutSuffix(text, "m0s"); ok {
		text = rest + "m"
	}
	if rest, ok := strings.CutSuffix(text, "h0m"); ok {
		text = rest + "h"
	}
	return text
}

// size is a number of bytes.
type size int64

// String is the size in the largest unit that it is a multiple of.
func (n size) String() string {
	if n == 0 {
		return "0"
	}
	for i := len(binaryUnits) - 1; i >= 0; i-- {
		if u := binaryUnits[i]; int64(n)%u.size == 0 {
			return strconv.FormatInt(int64(n)/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(n), 10)
}

type unit struct {
	suffix string
	size   int64
}

var (
	binaryUnits  = [...]unit{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}
	decimalUnits = [...]unit{{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}
)

func parseBytes(s string) (int64, error) {
	for _, u := range append(binaryUnits[:], decimalUnits[:]...) {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.size {
			break
		}
		return n * u.size, nil
	}
	return 0, fmt.Errorf("%q is not a size: write bytes, or 64KiB, 8MiB, 2GiB", s)
}

func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil { // fits: 2^16 days are 179 years
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: write 500ms, 10s, 24h, 7d", s)
	}
	return d, nil
}

func parseFlag(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%q is neither 1 nor 0", s)
	}
	return b, nil
}

// scalar makes the access to a field whose text parse reads.
func scalar[T any](field func(*Config) *T, parse func(string) (T, error)) access {
	return access{
		get: func(c *Config) any { return *field(c) },
		set: func(c *Config, v []string) error {
			parsed, err := parse(v[0])
			if err == nil {
				*field(c) = parsed
			}
			return err
		},
	}
}

func text(field func(*Config) *string) access {
	return scalar(field, func(s string) (string, error) { return s, nil })
}

func duration(field func(*Config) *time.Duration) access { return scalar(field, parseDuration) }

func boolean(field func(*Config) *bool) access { return scalar(field, parseFlag) }

func number(field func(*Config) *int) access {
	return scalar(field, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("%q is not a number", s)
		}
		return n, nil
	})
}

// bytes is a size in a field of either width.
func bytes[T int | int64](field func(*Config) *T) access {
	a := scalar(field, func(s string) (T, error) {
		n, err := parseBytes(s)
		if err == nil && int64(T(n)) != n {
			err = fmt.Errorf("%s is too large", s)
		}
		return T(n), err
	})
	a.get = func(c *Config) any { return size(*field(c)) }
	return a
}

func list(field func(*Config) *[]string) access {
	return access{
		get: func(c *Config) any { return *field(c) },
		set: func(c *Config, v []string) error { *field(c) = v; return nil },
	}
}
