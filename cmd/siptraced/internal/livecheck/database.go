package livecheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"siptraced/cmd/siptraced/internal/store"
	"siptraced/compat/siptrace"
	"siptraced/dbschema"
)

const (
	keyURL   = "siptrace.db_url"
	keyTable = "siptrace.table"
)

// database logs in, looks at the table and at the rights, and sends a message
// through.
func (c *check) database(ctx context.Context) {
	cfg := c.cfg.Store
	cfg.Rejects = nil
	if !c.cfg.Params.Stores() {
		c.say(ok, "database", "no rows are written (siptrace.trace_to_database and trace_mode: %s)", c.cfg.Origin("siptrace.trace_to_database"))
		c.messageInFile(ctx)
		return
	}
	if cfg.URL.Driver == siptrace.DriverSQLite {
		if _, err := os.Stat(cfg.URL.Database); errors.Is(err, fs.ErrNotExist) {
			c.verdict("database", cfg.URL.Database+" is not there yet: run makes it, and the table", appendable(cfg.URL.Database), keyURL, "name a file that this user can make")
			c.messageInFile(ctx)
			return
		}
	}
	e, err := store.Examine(ctx, cfg)
	if err != nil {
		c.verdict("database", "", err, keyURL, advice(err))
		c.say(skipped, "message", "the database does not let us in")
		return
	}
	defer e.Close()
	c.say(ok, "database", "%s %s answers, and takes the user", strings.Trim(cfg.URL.Driver+" "+e.Host, " "), e.Server)
	if !c.table(ctx, e) {
		c.say(skipped, "message", "there is no table to write to")
		return
	}
	c.beside(ctx, e)
	name, drop, err := e.Scratch(ctx)
	if err != nil {
		c.withoutScratch(ctx, err)
		return
	}
	cfg.Table = name
	err = c.message(ctx, cfg, e)
	if left := drop(context.WithoutCancel(ctx)); left != nil {
		c.say(failed, "message", "table %s is left behind: %v; DROP TABLE %s", name, left, name)
	}
	c.verdict("message", "one went through socket, spool and database into a table of its own, came back as it was, and the table is gone again", err, keyURL, "see the error")
}

// withoutScratch sends the message into a file where the user can make no table.
func (c *check) withoutScratch(ctx context.Context, why error) {
	if !errors.Is(why, store.ErrNotTried) {
		c.verdict("message", "", why, keyURL, "no table can be made to try it in")
		return
	}
	c.messageInFile(ctx)
	c.say(skipped, "message", "not into this database, because the user can't make a table there (%v); that a row is taken was tried above", why)
}

// advice is what to do about a database that lets nobody in.
func advice(err error) string {
	if store.IsRefused(err) {
		return "set user, password and database as the server has them"
	}
	return "start it, or set host and port as it has them"
}

// table looks at the table and has it take a row; false: there is none.
func (c *check) table(ctx context.Context, e *store.Exam) bool {
	name := c.cfg.Store.Table
	found, err := e.Table(ctx)
	if errors.Is(err, dbschema.ErrNoTable) && c.cfg.Store.URL.Driver == siptrace.DriverSQLite {
		c.say(ok, "table", "%s is not there yet: run makes it", name)
		return true
	}
	if err != nil {
		c.verdict("table", "", err, keyTable, "make it with: siptraced schema create, as a user that may; and grant SELECT and INSERT on it")
		return false
	}
	bad := 0
	for _, p := range found.Check() {
		verdict := warning
		switch p.Severity {
		case dbschema.Note:
			continue
		case dbschema.Error:
			verdict = failed
			bad++
		}
		fix := strings.Join(p.Fix, "; ")
		if fix != "" {
			fix = "; mend: " + fix
		}
		c.say(verdict, "table", "%s: %s%s", p.Place, p.Text, fix)
	}
	if bad == 0 {
		c.say(ok, "table", "%s is %s", name, found.Form)
	}
	err = e.Insert(ctx, found)
	if errors.Is(err, store.ErrNotTried) {
		c.say(skipped, "grants", "%v", err)
		return true
	}
	c.verdict("grants", "INSERT into "+name+" works (tried, and taken back)", err, keyURL, c.grant("INSERT", name))
	if err := e.Select(ctx, found); err != nil {
		c.say(warning, "grants", "SELECT from %s: %v; rows are written without it, but nothing warns before its ids end; %s", name, err, c.grant("SELECT", name))
	} else {
		c.say(ok, "grants", "SELECT from %s works", name)
	}
	return true
}

// grant is the statement that gives a right.
func (c *check) grant(right, table string) string {
	u := c.cfg.Store.URL
	switch u.Driver {
	case siptrace.DriverMySQL:
		if !strings.Contains(table, ".") {
			table = u.Database + "." + table
		}
		return fmt.Sprintf("GRANT %s ON %s TO '%s'@'...'", right, table, u.User)
	case siptrace.DriverPostgres:
		return fmt.Sprintf("GRANT %s ON %s TO %s; and USAGE on the sequence of its id", right, table, u.User)
	}
	return "make the file writable"
}

// beside looks at siptraced's own tables.
func (c *check) beside(ctx context.Context, e *store.Exam) {
	for _, b := range e.Beside(ctx) {
		rights := "SELECT, INSERT"
		if b.Table == dbschema.PositionTable {
			rights += ", UPDATE"
		}
		remedy := "make it with: siptraced schema create, as a user that may; and " + c.grant(rights, b.Table)
		switch {
		case b.New && b.Err == nil:
			c.say(ok, "grants", "%s is not there yet: run makes it", b.Table)
		case b.Err == nil:
			c.say(ok, "grants", "%s can be written", b.Table)
		case b.Table == dbschema.LogTable:
			c.say(warning, "grants", "%s: %s: %v; %s", b.Table, b.Without, b.Err, remedy)
		default:
			c.verdict("grants", "", fmt.Errorf("%s: %s: %w", b.Table, b.Without, b.Err), keyURL, remedy)
		}
	}
}
