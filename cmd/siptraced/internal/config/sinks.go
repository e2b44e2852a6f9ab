package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"siptraced/compat/kamcfg"
	"siptraced/compat/siptrace"
)

// Most proxies store nothing and mirror to a collector on their own host. When
// siptraced stands in that collector's place, nobody else has the messages: they
// are kept in a file of siptraced's own, and that is said.

const (
	toDatabase = module + "trace_to_database"
	dbURL      = module + "db_url"
)

// finishStore decides where rows go, once the mirrors are known, and what bounds
// the database.
func (c *Config) finishStore() (problems []error) {
	if c.keeps() {
		c.keep()
	}
	u, err := siptrace.ParseDBURL(c.Params.DBURL)
	if err != nil {
		problems = append(problems, c.problem(dbURL, err))
	}
	c.Store.URL, c.Store.Table, c.Store.Columns = u, c.Params.Table, c.Params.Columns
	return append(problems, c.boundStore()...)
}

// goesNowhere reports whether a message for which no rule names a destination has
// no sink.
func (c *Config) goesNowhere() bool {
	r := c.Routing()
	return r.Default|r.Always == 0
}

// keeps reports whether messages are stored though the proxy's own file says that
// it stores none: it mirrors them to us, and nothing else takes them. An operator
// who says so in one of siptraced's own places has it so.
func (c *Config) keeps() bool {
	s, ok := c.stored[toDatabase]
	var proxy siptrace.Params
	if !ok || s.by != byProxy || len(c.mirroredHere()) == 0 || proxy.Set("trace_to_database", s.value) != nil || proxy.TraceToDatabase {
		return false
	}
	on := c.Params.TraceToDatabase
	if _, remote := c.remote[toDatabase]; remote && !on {
		return false
	}
	// Remote control that switches it on again leads back to where the rows were.
	c.Params.TraceToDatabase = false
	defer func() { c.Params.TraceToDatabase = on }()
	return c.goesNowhere()
}

// mirroredHere are the addresses of ours that the proxy mirrors to: by duplicate_uri,
// or by sip_trace() in its script.
func (c *Config) mirroredHere() (uris []string) {
	proxy := c.sources.proxy
	if proxy == nil {
		return nil
	}
	look := func(uri string) {
		if d, err := c.Mirror.Dynamic.At(uri); err == nil && c.literalSelf(d.Target) && !slices.Contains(uris, uri) {
			uris = append(uris, uri)
		}
	}
	for _, p := range proxy.Params {
		if p.Module == moduleName && p.Name == "duplicate_uri" {
			look(p.Value.Str)
		}
	}
	for _, b := range proxy.Blocks {
		for i, t := range b.Tokens {
			if t.Kind == kamcfg.Word && t.Text == "sip_trace" && i+2 < len(b.Tokens) && b.Tokens[i+1].Kind == '(' {
				look(b.Tokens[i+2].Text)
			}
		}
	}
	return uris
}

// keep has messages stored: in the database that the operator named, else in a
// file of our own.
func (c *Config) keep() {
	c.kept = true
	c.Params.TraceToDatabase = true
	if c.remote[toDatabase].value == nil {
		c.derived[toDatabase] = "kept, because nothing else takes the messages; 0 in " + c.stored[toDatabase].place
	}
	if !c.namesDatabase() {
		c.Params.DBURL = c.sources.ownDatabase()
		c.derived[dbURL] = "a file of siptraced's own, because nothing else takes the messages"
	}
}

// namesDatabase reports whether the operator gave a db_url in one of siptraced's
// own places.
func (c *Config) namesDatabase() bool {
	s, ok := c.setting(dbURL)
	return ok && s.by == byOperator
}

// ownFile reports whether rows go into a file that nobody asked for.
func (c *Config) ownFile() bool {
	s, ok := c.setting(dbURL)
	return !c.namesDatabase() && (c.kept || ok && s.by == byNobody)
}

// Kept reports whether messages are stored because nothing else takes them.
func (c *Config) Kept() bool { return c.kept }

// boundStore takes the bounds off a database that is the operator's, but for those
// that they set.
func (c *Config) boundStore() (problems []error) {
	if c.ownFile() {
		return nil
	}
	for _, b := range []struct {
		key   string
		set   bool
		unset func()
	}{
		{"store.keep_bytes", c.Store.KeepBytes > 0, func() { c.Store.KeepBytes = 0 }},
		{"store.keep", c.Store.Keep > 0, func() { c.Store.Keep = 0 }},
	} {
		if _, ok := c.setting(b.key); !ok {
			b.unset()
			c.derived[b.key] = defaultFor("nothing is removed from a database that you named")
			continue
		}
		if driver := c.Store.URL.Driver; b.set && c.Params.Stores() && driver != siptrace.DriverSQLite {
			err := fmt.Errorf("%s: siptraced removes rows from SQLite files only; for %s use its own means (partitions, an event, a cron job), and take this key out", b.key, driver)
			problems = append(problems, c.problem(b.key, err))
		}
	}
	return problems
}

// noteSinks says where messages go that nobody sent there, or that they go nowhere.
func (c *Config) noteSinks() {
	p := &c.Params
	if c.ProxyTraces() && len(c.mirroredHere()) == 0 {
		c.Remarks = append(c.Remarks, fmt.Sprintf("%s mirrors to no address that siptraced listens on (%s): nothing comes from that proxy yet", c.KamailioCfg, formatAll(c.Ingest.Listen)))
	}
	switch {
	case c.kept:
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s has trace_to_database 0 and mirrors to siptraced itself (%s), and nothing else takes the messages: siptraced keeps them in %s. %s",
			c.KamailioCfg, strings.Join(c.mirroredHere(), ", "), c.keptIn(), otherWays))
	case !c.goesNowhere():
		if c.ownFile() && p.Stores() {
			c.Remarks = append(c.Remarks, fmt.Sprintf("nobody named a database (siptrace.db_url): rows go into %s; beyond these bounds the oldest ones are removed", c.keptIn()))
		}
		if !p.Stores() {
			c.Remarks = append(c.Remarks, "trace_to_database is 0 and trace_mode lacks the value 2: no rows are written, only mirrors get the messages")
		}
	default:
		what := "every message that comes in is dropped"
		if c.Rules.NamesDestinations() {
			what = "every message for which no rule names a destination is dropped"
		}
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s (dropped.no_sink): no rows are written, because trace_to_database is 0 (%s) and trace_mode lacks the value 2, and there is no mirror that takes all messages. %s",
			what, c.place(toDatabase), otherWays))
	}
}

// otherWays are what to set where messages go nowhere.
const otherWays = "To have them in a database, set siptrace.trace_to_database to 1 and siptrace.db_url; " +
	"to pass them on to a collector, give that another port than siptraced's and name it in destinations, such as sip:127.0.0.1:9061"

// keptIn names the place of what is kept, and its bounds.
func (c *Config) keptIn() string {
	if c.namesDatabase() {
		return "the database of siptrace.db_url"
	}
	var bounds []string
	if n := c.Store.KeepBytes; n > 0 {
		bounds = append(bounds, fmt.Sprintf("store.keep_bytes %s", size(n)))
	}
	if d := c.Store.Keep; d > 0 {
		bounds = append(bounds, "store.keep "+formatDuration(d))
	}
	return fmt.Sprintf("%s (SQLite; %s)", c.Store.URL.Database, cmp.Or(strings.Join(bounds, ", "), "without a bound"))
}
