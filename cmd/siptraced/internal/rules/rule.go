package rules

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
	"siptraced/rpc"
)

// Bounds of one rule, each far over what a person writes.
const (
	maxID     = 64
	maxFilter = 4096
	maxValue  = 1024 // destination, correlation id, one user: bytes
	maxUsers  = 64
	// Of one message, over all its rules.
	maxDestinations = 8
	maxDestination  = 256
	maxLimit        = 366 * 24 * time.Hour
)

// Rule chooses messages, and says what is done with them.
type Rule struct {
	// ID names the rule; empty: one is made.
	ID string `json:"id" yaml:"id"`
	// Filter is an expression of Flexisip's filter language; empty: every message.
	Filter string `json:"filter,omitempty" yaml:"filter"`
	// Scope is m, t or d: the message, its transaction or its dialog. Empty: m.
	Scope string `json:"scope,omitempty" yaml:"scope"`
	// Destinations are mirrors, as duplicate_uri has them.
	Destinations []string `json:"destination,omitempty" yaml:"destination"`
	// CorrelationID goes along with HEP3; pseudo-variables are those of the message
	// that matched.
	CorrelationID string `json:"correlation_id,omitempty" yaml:"correlation_id"`
	// Users become traced_user, one row each; the last one makes the first row, as
	// the last value of an AVP does.
	Users []string `json:"users,omitempty" yaml:"users"`
	// Table is where the rows go; it has to be an allowed one.
	Table string `json:"table,omitempty" yaml:"table"`
	// Until is when the rule ends; zero: never.
	Until time.Time `json:"until,omitzero" yaml:"-"`
	// Started is when, By is who: the RPC peer, or the file.
	Started time.Time `json:"started,omitzero" yaml:"-"`
	By      string    `json:"by,omitempty" yaml:"-"`
}

// ruleKeys are the names of a rule's parameters, with those that mean the same.
var ruleKeys = map[string]string{
	"id": "id", "filter": "filter", "scope": "scope", "mode": "scope", "destination": "destination", "address": "destination",
	"correlation_id": "correlation_id", "users": "users", "user": "users", "table": "table", "limit": "limit", "time_limit": "limit",
}

// set takes one parameter; lists are written with commas, or come as lists.
func (r *Rule) set(key string, value any, now time.Time) error {
	name, known := ruleKeys[strings.ToLower(key)]
	if !known {
		did := ""
		if near := nearestKey(key); near != "" {
			did = fmt.Sprintf(", did you mean %s?", near)
		}
		return fmt.Errorf("there is no parameter %.40q%s id, filter, scope, destination, correlation_id, users, table and limit are known", key, cmp.Or(did, ":"))
	}
	var list []string
	text := ""
	switch v := value.(type) {
	case string:
		text, list = v, split(v)
	case int64:
		text = strconv.FormatInt(v, 10)
		list = []string{text}
	case int:
		text = strconv.Itoa(v)
		list = []string{text}
	case rpc.List:
		for _, e := range v {
			list = append(list, fmt.Sprint(e))
		}
	case []any:
		for _, e := range v {
			list = append(list, fmt.Sprint(e))
		}
	default:
		return fmt.Errorf("%s: a value of type %T does not fit", name, value)
	}
	if text == "" && len(list) == 1 {
		text = list[0]
	}
	if text == "" && len(list) > 1 && name != "users" && name != "destination" {
		return fmt.Errorf("%s: one value is possible, not a list", name)
	}
	switch name {
	case "id":
		r.ID = text
	case "filter":
		r.Filter = text
	case "scope":
		r.Scope = text
	case "destination":
		r.Destinations = append(r.Destinations, list...)
	case "correlation_id":
		r.CorrelationID = text
	case "users":
		r.Users = append(r.Users, list...)
	case "table":
		r.Table = text
	case "limit":
		return r.limit(text, now)
	}
	return nil
}

// limit reads a time limit: 10m, 2h30m, or seconds.
func (r *Rule) limit(text string, now time.Time) error {
	d, err := time.ParseDuration(text)
	if n, nerr := strconv.ParseInt(text, 10, 32); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d <= 0 || d > maxLimit {
		return fmt.Errorf("limit: %.40q is not a time from 1s to %dh: write 90s, 10m, 2h", text, int(maxLimit.Hours()))
	}
	r.Until = now.Add(d)
	return nil
}

func split(s string) []string {
	var out []string
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}

// word takes key=value apart; false when it is something else, such as a SIP URI
// with parameters. A key that is nearly one of a rule's is a word too, so that it is
// not taken for a filter.
func word(s string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(s, "=")
	key = strings.TrimSpace(key)
	_, known := ruleKeys[strings.ToLower(key)]
	near := key != "" && strings.Trim(strings.ToLower(key), "abcdefghijklmnopqrstuvwxyz_") == "" && !strings.HasPrefix(value, "=") && nearestKey(key) != ""
	return key, value, ok && (known || near)
}

// nearestKey is the parameter that is meant by a name that is none, or "".
func nearestKey(name string) string {
	return kamcfg.Nearest(strings.ToLower(name), slices.Sorted(maps.Keys(ruleKeys)))
}

// ParseWords reads a rule written as key=value words.
func ParseWords(words []string, now time.Time) (*Rule, error) {
	r := &Rule{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("%.40q: want key=value", w)
		}
		if err := r.set(strings.TrimSpace(k), v, now); err != nil {
			return nil, err
		}
	}
	return r, r.check()
}

// ParseMap reads a rule written as a mapping.
func ParseMap(m map[string]any, now time.Time) (*Rule, error) {
	r := &Rule{}
	for k, v := range m {
		if err := r.set(k, v, now); err != nil {
			return nil, err
		}
	}
	return r, r.check()
}

// check refuses what can't work, and puts the defaults in.
func (r *Rule) check() error {
	r.Scope = strings.ToLower(r.Scope)
	switch {
	case r.Scope == "":
		r.Scope = "m"
	case !strings.ContainsAny(r.Scope[:1], "mtd"):
		return fmt.Errorf("scope: %.20q is none of m (message), t (transaction), d (dialog)", r.Scope)
	default:
		r.Scope = r.Scope[:1] // only the first character matters, as in sip_trace_mode()
	}
	switch {
	case len(r.ID) > maxID || strings.ContainsFunc(r.ID, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return fmt.Errorf("id: at most %d characters, without blanks", maxID)
	case len(r.Filter) > maxFilter:
		return fmt.Errorf("filter: %d bytes, at most %d are possible", len(r.Filter), maxFilter)
	case len(r.CorrelationID) > maxValue:
		return fmt.Errorf("correlation_id: %d bytes, at most %d are possible", len(r.CorrelationID), maxValue)
	case len(r.Users) > maxUsers:
		return fmt.Errorf("users: %d, at most %d are possible", len(r.Users), maxUsers)
	case len(r.Destinations) > maxDestinations:
		return fmt.Errorf("destination: %d, at most %d are possible", len(r.Destinations), maxDestinations)
	case slices.ContainsFunc(r.Users, func(u string) bool { return len(u) > maxValue }):
		return fmt.Errorf("users: at most %d bytes each", maxValue)
	}
	for _, d := range r.Destinations {
		if _, err := siptrace.ParseMirrorURI([]byte(d)); err != nil {
			return fmt.Errorf("destination: %w", err)
		}
		if len(d) > maxDestination {
			return fmt.Errorf("destination: %d bytes, at most %d are possible", len(d), maxDestination)
		}
	}
	if r.Table != "" {
		if err := siptrace.CheckIdentifier(r.Table); err != nil {
			return fmt.Errorf("table: %w", err)
		}
	}
	return nil
}

var errNoWords = errors.New("want key=value words or an object: id, filter, scope, destination, correlation_id, users, table, limit")

// fields splits a line into words; blanks inside double quotes belong to a word,
// and a backslash takes the next character as it is.
func fields(s string) ([]string, error) {
	var out []string
	var b strings.Builder
	quoted, inWord, escaped := false, false, false
	for _, c := range s {
		switch {
		case escaped:
			b.WriteRune(c)
			escaped = false
		case c == '\\':
			escaped, inWord = true, true
		case c == '"':
			quoted, inWord = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n'):
			if inWord {
				out = append(out, b.String())
				b.Reset()
			}
			inWord = false
		default:
			b.WriteRune(c)
			inWord = true
		}
	}
	if quoted || escaped {
		return nil, errors.New("a quote or backslash at its end is open")
	}
	if inWord {
		out = append(out, b.String())
	}
	return out, nil
}
