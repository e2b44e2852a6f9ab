package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"siptraced/rpc"
	"siptraced/rpc/client"
)

// defaultCtl is where `siptraced run` serves BINRPC when nothing is configured.
const defaultCtl = "unix:/run/siptraced/ctl"

func rpcCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rpc METHOD [PARAM...]", Short: "call a method of a running siptraced or Kamailio"}
	f := cmd.Flags()
	address := f.StringP("server", "s", defaultCtl, "address: unix:, unixd:, tcp:, udp:, fifo:, json:..., http:, mi:, flexisip:")
	asJSON := f.Bool("json", false, "print the result as JSON")
	timeout := f.Duration("timeout", client.DefaultTimeout, "how long an answer may take")
	token := f.String("token", "", "bearer token for http")
	replyDir := f.String("reply-dir", "", "where reply FIFOs are made, as the server has it")
	// What follows the method is its parameters, dashes and all.
	f.SetInterspersed(false)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%w: name a method, such as siptrace.status check", errUsage)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		addr, err := client.ParseAddress(*address)
		if err != nil {
			return errors.Join(errUsage, err)
		}
		c := client.New(addr, client.Config{Timeout: max(*timeout, time.Millisecond), Token: *token, ReplyDir: *replyDir})
		params := make([]any, 0, len(args)-1)
		for _, a := range args[1:] {
			params = append(params, param(a))
		}
		v, err := c.Call(cmd.Context(), args[0], params...)
		if err != nil {
			return err
		}
		if *asJSON {
			text, err := json.MarshalIndent(plain(v), "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), string(text))
			return err
		}
		return show(cmd.OutOrStdout(), v, "")
	}
	return cmd
}

// param reads a parameter as kamcmd does: a number is a number, s: forces a
// string.
func param(s string) any {
	if rest, ok := strings.CutPrefix(s, "s:"); ok {
		return rest
	}
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return n
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return f
	}
	return s
}

// show prints a result for people: a value on a line, members indented.
func show(w io.Writer, v any, indent string) error {
	switch v := v.(type) {
	case nil:
		return nil
	case rpc.List:
		for i, e := range v {
			if _, nested := e.(rpc.Struct); nested && i > 0 {
				if _, err := fmt.Fprintln(w); err != nil {
					return err
				}
			}
			if err := show(w, e, indent); err != nil {
				return err
			}
		}
		return nil
	case rpc.Struct:
		for _, m := range v {
			_, isStruct := m.Value.(rpc.Struct)
			_, isList := m.Value.(rpc.List)
			if !isStruct && !isList {
				if _, err := fmt.Fprintf(w, "%s%s: %v\n", indent, m.Name, m.Value); err != nil {
					return err
				}
				continue
			}
			if _, err := fmt.Fprintf(w, "%s%s:\n", indent, m.Name); err != nil {
				return err
			}
			if err := show(w, m.Value, indent+"  "); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := fmt.Fprintf(w, "%s%v\n", indent, v)
	return err
}

// plain is a result in types that encoding/json knows. Members that repeat
// become a list of objects.
func plain(v any) any {
	switch v := v.(type) {
	case rpc.List:
		out := []any{}
		for _, e := range v {
			out = append(out, plain(e))
		}
		return out
	case rpc.Struct:
		if v.Repeats() {
			out := []any{}
			for _, m := range v {
				out = append(out, map[string]any{m.Name: plain(m.Value)})
			}
			return out
		}
		out := map[string]any{}
		for _, m := range v {
			out[m.Name] = plain(m.Value)
		}
		return out
	}
	return v
}
