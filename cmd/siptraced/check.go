package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/dryrun"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "validate the configuration and print what is set, and where", Args: noArgs}
	src := sources(cmd)
	f := cmd.Flags()
	all := f.Bool("all", false, "print every setting, those with their defaults too")
	keys := f.Bool("keys", false, "print every key with its default and meaning, as Markdown, and read nothing")
	dry := f.String("dry-run", "", "say for each message of a capture (pcap, or JSON lines) what each rule does with it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		if *keys {
			_, err := fmt.Fprint(out, config.Markdown())
			return err
		}
		cfg, err := config.Load(*src)
		if err != nil {
			return err
		}
		if *dry != "" {
			printConfig(out, cfg, *all)
			return dryrun.Run(cfg, *dry, out)
		}
		printConfig(out, cfg, *all)
		return nil
	}
	return cmd
}

// printConfig prints what is set, then what follows from it, and last what an
// operator must not miss.
func printConfig(out io.Writer, cfg *config.Config, all bool) {
	defaults := 0
	for _, v := range cfg.Values {
		if v.IsDefault() && !all {
			defaults++
			continue
		}
		fmt.Fprintln(out, v)
	}
	for _, s := range cfg.Sockets {
		fmt.Fprintln(out, s)
	}
	fmt.Fprint(out, cfg.Rules.Describe())
	if defaults > 0 {
		fmt.Fprintf(out, "%d other settings have their defaults; --all prints them too\n", defaults)
	}
	for _, n := range slices.Concat(cfg.Remarks, cfg.Notes) {
		fmt.Fprintln(out, "note:", n)
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(out, "warning:", w)
	}
}
