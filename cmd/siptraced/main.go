// Command siptraced is Kamailio's siptrace module outside Kamailio: it takes
// mirrored SIP and fills the module's sip_trace table.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"

	"github.com/spf13/cobra"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/control"
	"siptraced/cmd/siptraced/internal/daemon"
	"siptraced/compat/kamcfg"
)

// Exit codes.
const (
	exitError = 1 // the configuration, a socket, the spool, the database
	exitUsage = 2 // the command line
)

// errUsage marks errors of the command line.
var errUsage = errors.New("usage")

func main() {
	if err := root().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "siptraced:", err)
		if errors.Is(err, errUsage) {
			os.Exit(exitUsage)
		}
		os.Exit(exitError)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "siptraced",
		Short:         "Kamailio's siptrace module outside Kamailio",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	group(cmd)
	// The flag that cobra has for it links text/template, and with that every method of every type.
	version := versionCommand()
	show := cmd.Flags().BoolP("version", "v", false, "print the version and the revision of this program")
	help := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *show {
			return version.RunE(cmd, args)
		}
		return help(cmd, args)
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errors.Join(errUsage, err) })
	cmd.AddCommand(runCommand(), checkCommand(), schemaCommand(), rpcCommand(), migrateCommand(), version, replayCommand(), spoolCommand())
	return cmd
}

// sources adds the flags that name the configuration.
func sources(cmd *cobra.Command) *config.Sources {
	src := &config.Sources{Environ: config.Environ()}
	f := cmd.Flags()
	f.StringVarP(&src.File, "config", "c", "", "siptraced's own configuration (siptraced.yaml)")
	f.StringVar(&src.KamailioCfg, "kamailio-cfg", "", "the proxy's kamailio.cfg")
	kamailioFlags(cmd, &src.Kamailio)
	f.StringArrayVar(&src.Set, "set", nil, "one setting, `key=value`; lists with commas; an empty value unsets")
	return src
}

// kamailioFlags adds the flags that say how the proxy itself is started.
func kamailioFlags(cmd *cobra.Command, line *kamcfg.CommandLine) {
	f := cmd.Flags()
	f.StringArrayVarP(&line.Defines, "define", "A", nil, "Kamailio's own -A: defines `NAME[=VALUE]` before kamailio.cfg is read; may be repeated")
	f.StringArrayVarP(&line.Listens, "kamailio-listen", "l", nil, "Kamailio's own -l: an `ADDRESS` beside its listen= lines; may be repeated")
	f.StringVar(&line.Version, "kamailio-version", "", "the proxy's version, for #!ifdef KAMAILIO_6 and the like (default "+kamcfg.DefaultVersion+")")
}

func runCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "run", Short: "run the daemon", Args: noArgs}
	src := sources(cmd)
	profile := cmd.Flags().String("cpu-profile", "", "write a CPU profile of the whole run to `FILE`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		stop, err := profileCPU(*profile)
		if err != nil {
			return err
		}
		defer stop()
		return daemon.Run(cmd.Context(), daemon.Options{
			Load:   func() (*config.Config, error) { return config.Load(*src) },
			Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(),
		})
	}
	return cmd
}

// profileCPU starts a CPU profile, for looking into a daemon under load and for
// the profile that the build is optimised with.
func profileCPU(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("--cpu-profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("--cpu-profile: %w", err), f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %s takes no argument, but got %q", errUsage, cmd.CommandPath(), args[0])
	}
	return nil
}

// group makes a command that only has others below it: without arguments it prints
// its help, and an argument that names none of them is an error of the command line.
func group(cmd *cobra.Command) {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		err := fmt.Errorf("%w: %s has no command %q", errUsage, cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%w: did you mean %q?", err, near[0])
		}
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	}
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "print the version and the revision of this program", Args: noArgs, Hidden: true}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), control.ReadBuild())
		return err
	}
	return cmd
}
