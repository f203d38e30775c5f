// Golang.org/x/oauth2/clientcredentials as its documentation shows it: one run gets a token and asks a resource with it.
// The input is JSON on stdin, the result JSON on stdout.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

type input struct {
	Issuer       string     `json:"issuer"`
	ClientID     string     `json:"client_id"`
	ClientSecret string     `json:"client_secret"`
	Scopes       []string   `json:"scopes"`
	AuthStyle    int        `json:"auth_style"`
	Parameters   url.Values `json:"parameters"`
}

type output struct {
	AccessToken string          `json:"access_token,omitempty"`
	TokenType   string          `json:"token_type,omitempty"`
	Seconds     float64         `json:"seconds,omitempty"`
	Status      int             `json:"status,omitempty"`
	Info        json.RawMessage `json:"info,omitempty"`
	ErrorCode   string          `json:"error,omitempty"`
	Description string          `json:"error_description,omitempty"`
	ErrorStatus int             `json:"error_status,omitempty"`
}

func run(in input) (*output, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conf := &clientcredentials.Config{
		ClientID:       in.ClientID,
		ClientSecret:   in.ClientSecret,
		TokenURL:       in.Issuer + "/oauth/token",
		Scopes:         in.Scopes,
		EndpointParams: in.Parameters,
		AuthStyle:      oauth2.AuthStyle(in.AuthStyle),
	}
	token, err := conf.Token(ctx)
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		return &output{ErrorCode: refused.ErrorCode, Description: refused.ErrorDescription, ErrorStatus: refused.Response.StatusCode}, nil
	}
	if err != nil {
		return nil, err
	}
	answer, err := oauth2.NewClient(ctx, oauth2.StaticTokenSource(token)).Get(in.Issuer + "/tokeninfo")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	// The client that fetches and renews tokens by itself.
	again, err := conf.Client(ctx).Get(in.Issuer + "/tokeninfo")
	if err != nil {
		return nil, err
	}
	defer again.Body.Close()
	if again.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the client's own token was answered %s", again.Status)
	}
	return &output{
		AccessToken: token.AccessToken,
		TokenType:   token.Type(),
		Seconds:     time.Until(token.Expiry).Seconds(),
		Status:      answer.StatusCode,
		Info:        body,
	}, nil
}

func main() {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	out, err := run(in)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
