package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/store"
	"siptraced/dbschema"
)

// schemaTarget is the table that a schema command is about.
type schemaTarget struct {
	store   store.Config
	dialect dbschema.Dialect
}

func schemaCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "schema", Short: "print, create or check the sip_trace table"}
	group(cmd)
	sub := func(name, short string, run func(context.Context, io.Writer, schemaTarget) error) {
		c := &cobra.Command{Use: name, Short: short, Args: noArgs}
		src := sources(c)
		dbURL := c.Flags().String("db-url", "", "database, as the db_url parameter; wins over the configuration")
		table := c.Flags().String("table", "", "table, as the table parameter; wins over the configuration")
		c.RunE = func(c *cobra.Command, _ []string) error {
			if *dbURL != "" {
				src.Set = append(src.Set, "siptrace.db_url="+*dbURL)
			}
			if *table != "" {
				src.Set = append(src.Set, "siptrace.table="+*table)
			}
			t, err := target(*src)
			if err != nil {
				return err
			}
			return run(c.Context(), c.OutOrStdout(), t)
		}
		cmd.AddCommand(c)
	}
	sub("print", "print the statements that make the table", printSchema)
	sub("create", "make the table where it is missing", createSchema)
	sub("check", "compare the table with what Kamailio and its readers expect", checkSchema)
	return cmd
}

func target(src config.Sources) (schemaTarget, error) {
	cfg, err := config.Load(src)
	if err != nil {
		return schemaTarget{}, err
	}
	d, ok := dbschema.DialectOf(cfg.Store.URL.Driver)
	if !ok {
		return schemaTarget{}, fmt.Errorf("db_url: %q has no SQL schema: use mysql, postgres or sqlite", cfg.Store.URL.Driver)
	}
	return schemaTarget{cfg.Store, d}, nil
}

// statements make the table and siptraced's own beside it.
func (t schemaTarget) statements() ([]string, error) {
	texts, err := dbschema.Create(t.dialect, t.store.Table, t.store.Columns)
	if err != nil {
		return nil, err
	}
	return append(texts, t.beside()...), nil
}

// beside are the statements that make siptraced's own tables.
func (t schemaTarget) beside() []string {
	return append([]string{dbschema.PositionSQL(t.dialect).Create}, dbschema.LogSQL(t.dialect).Create...)
}

func printSchema(_ context.Context, out io.Writer, t schemaTarget) error {
	texts, err := t.statements()
	if err != nil {
		return err
	}
	for _, s := range texts {
		fmt.Fprintf(out, "%s;\n\n", s)
	}
	return nil
}

func createSchema(ctx context.Context, out io.Writer, t schemaTarget) error {
	db, err := store.Database(ctx, t.store.URL)
	if err != nil {
		return err
	}
	defer db.Close()
	texts, err := t.statements()
	if err != nil {
		return err
	}
	_, err = dbschema.Inspect(ctx, db, t.dialect, t.store.Table, t.store.Columns)
	switch {
	case err == nil:
		// Only what stands beside it can be missing.
		texts = t.beside()
		fmt.Fprintf(out, "%s is there already and stays as it is; see: siptraced schema check\n", t.store.Table)
	case !errors.Is(err, dbschema.ErrNoTable):
		return err
	}
	for _, s := range texts {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%w\nin: %s", err, s)
		}
	}
	if err != nil {
		fmt.Fprintf(out, "%s made\n", t.store.Table)
	}
	return nil
}

// errProblems is the answer of schema check when a problem is an error.
var errProblems = errors.New("the table has errors")

func checkSchema(ctx context.Context, out io.Writer, t schemaTarget) error {
	exam, err := store.Examine(ctx, t.store)
	if err != nil {
		return err
	}
	defer exam.Close()
	found, err := exam.Table(ctx)
	if errors.Is(err, dbschema.ErrNoTable) {
		return fmt.Errorf("%w; make it with: siptraced schema create", err)
	}
	if err != nil {
		return err
	}
	bad := false
	problems := found.Check()
	for _, p := range problems {
		fmt.Fprintln(out, p)
		if len(p.Fix) > 0 {
			fmt.Fprintf(out, "    fix: %s;\n", strings.Join(p.Fix, ";\n          "))
		}
		bad = bad || p.Severity == dbschema.Error
	}
	if _, err := dbschema.NewPlan(found); err != nil {
		return err
	}
	for _, b := range exam.Beside(ctx) {
		if b.Err != nil {
			fmt.Fprintf(out, "warning: %s: %s: %v\n    fix: siptraced schema create, as a user that may make tables\n", b.Table, b.Without, b.Err)
		}
	}
	if bad {
		return errProblems
	}
	fmt.Fprintf(out, "%s is %s and can be written\n", t.store.Table, found.Form)
	return nil
}
