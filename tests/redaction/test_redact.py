"""What the redactor removes by names and layouts, what it leaves alone, and what it cannot know.

Secrets are put together at run time: no line of this file has the shape of a live token.
"""

from __future__ import annotations

import base64

import pytest

from testing.redaction import (
    BODY,
    FILLER,
    GITHUB,
    HEADER,
    HEX,
    JWT,
    OPENAI,
    RULES,
    redact_both_ways,
)
from testing.tables import each_row

SECRETS = [
    # (text with {} in the place of the secret, secret)
    pytest.param("api_key={}", "abc123xyz", id="documented-api-key"),
    pytest.param("service_role key: {}", FILLER, id="key-behind-a-compound-word"),
    pytest.param("apiKey: {}", "abc123xyz", id="documented-camel-case"),
    pytest.param('api_key = "{}"', "abc 123", id="quoted-with-space"),
    pytest.param("token={}\r\n", "abc123xyz", id="documented-token"),
    pytest.param("Bearer {}", "abc123xyz", id="documented-bearer"),
    pytest.param("password={}", "hunter2", id="documented-password"),
    pytest.param("DB_PASSWORD={}", "a,b;c&d)e", id="line-holds-any-character"),
    pytest.param("export MY_SERVICE_TOKEN={}", FILLER[:20], id="export"),
    pytest.param('{{"accessToken": "{}", "n": 1}}', FILLER[:20], id="json"),
    pytest.param('{{\\"client_secret\\": \\"{}\\"}}', FILLER[:20], id="escaped-json"),
    pytest.param("'password' => '{}',", "s3cr3t!", id="php"),
    pytest.param(":api_key => '{}'", FILLER[:20], id="ruby"),
    pytest.param('config["secret_key"] = "{}"', FILLER[:20], id="index"),
    pytest.param('var botToken string = "{}"', FILLER[:20], id="go"),
    pytest.param('token: str = "{}"', FILLER[:20], id="annotated"),
    pytest.param('setProperty("DB_PASSWORD", "{}")', "s3cr3t!", id="argument"),
    pytest.param("<password>{}</password>", "s3cr3t!", id="xml"),
    pytest.param("<apiToken>\n    {}\n</apiToken>", FILLER[:20], id="xml-on-its-own-line"),
    pytest.param("deploy --token {} now", FILLER[:20], id="flag"),
    pytest.param("deploy --api-key={} now", FILLER[:20], id="flag-with-sign"),
    pytest.param("- name: DB_PASSWORD\n  value: {}", "s3cr3t!", id="name-and-value"),
    pytest.param("machine h login me password {}", FILLER[:12], id="netrc"),
    pytest.param("ENV API_KEY {}", FILLER[:12], id="dockerfile"),
    pytest.param("set -x DB_PASSWORD {}", "s3cr3t-word", id="fish"),
    pytest.param('#define WIFI_PASSWORD "{}"', "s3cr3t-word", id="define"),
    pytest.param('token: Some("{}")', FILLER[:12], id="wrapped"),
    pytest.param('password: Some(\n    "{}",\n)', "s3cr3t-word", id="wrapped-on-its-own-line"),
    pytest.param("**Password:** {}", "s3cr3t-word", id="markdown"),
    pytest.param("Your password is: {}", "s3cr3t-word", id="told-with-a-colon"),
    pytest.param("| SecretAccessKey | {} |", FILLER[:40], id="table"),
    pytest.param("\u2502 auth_token    \u2502 {} \u2502", FILLER[:40], id="drawn-table"),
    pytest.param('<input name="csrf_token" value="{}">', FILLER[:20], id="form"),
    pytest.param('<input name="password" type="text" value="{}">', "s3cr3t!", id="form-attribute"),
    pytest.param('<meta name="csrf-token" content="{}">', FILLER[:20], id="meta"),
    pytest.param('name="password"\r\n\r\n{}\r\n--x', "s3cr3t!", id="multipart"),
    pytest.param(
        'name="password"\r\n\r\n{}\r\n--x', "huntertwo", id="multipart-begins-with-letters"
    ),
    pytest.param("curl -u admin:{} https://h/x", "s3cr3t-word", id="curl"),
    pytest.param("curl -s --user 'admin:{}' https://h/x", "s3cr3t word", id="curl-quoted"),
    pytest.param("mysql -uroot -p{} db", "s3cr3t-word", id="mysql"),
    pytest.param("sshpass -p {} ssh jane@h", "s3cr3t-word", id="sshpass"),
    pytest.param("docker login -u me -p {} registry.example", FILLER[:20], id="docker-login"),
    pytest.param("redis-cli -h h -a {} ping", "s3cr3t-word", id="redis"),
    pytest.param("curl -u admin:{} https://h/x", "s3cr3t-word" * 40, id="endless-flag"),
    pytest.param("mongosh -u admin -p {} --host h", "s3cr3t-word", id="mongosh"),
    pytest.param("smbclient //h/share -U user%{}\n", "s3cr3t-word", id="smbclient"),
    pytest.param("curl -x p -U user:{} https://h", "s3cr3t-word", id="curl-proxy"),
    pytest.param("curl --proxy-user 'user:{}' https://h", "s3cr3t word", id="curl-proxy-user"),
    pytest.param("http -a user:{} https://h", "s3cr3t-word", id="httpie"),
    pytest.param("unzip -P {} a.zip", "s3cr3t-word", id="unzip"),
    pytest.param("7z x -p{} a.7z", "s3cr3t-word", id="7z"),
    pytest.param("keytool -list -storepass {} -v", "s3cr3t-word", id="keytool"),
    pytest.param("CREATE USER 'a'@'%' IDENTIFIED BY '{}';", "hunter two", id="sql-identified"),
    pytest.param(
        "alter user a identified with caching_sha2_password by '{}';", "hunter", id="sql-plugin"
    ),
    pytest.param("create user scott identified by {};\n", "tiger", id="oracle"),
    pytest.param("create user scott identified by {};\n", FILLER * 9, id="endless-sql"),
    pytest.param("# redis.conf\nrequirepass {}\nport 1", "hunter&2", id="redis-configuration"),
    pytest.param("h:6379> CONFIG SET requirepass {}\r\nOK", "s3cr3t-word", id="redis-set"),
    pytest.param('1) "requirepass"\r\n2) "{}"\r\n', "s3cr3t-word", id="redis-get"),
    pytest.param("masterauth {}\r\n", "s3cr3t-word", id="redis-replica"),
    pytest.param("127.0.0.1:6379> AUTH {}\r\nOK\r\n", "hunter", id="redis-auth"),
    pytest.param("redis> auth jane {}\r\nOK\r\n", "hunter", id="redis-auth-user"),
    pytest.param("::add-mask::{}\r\nnext", "hunter two", id="github-mask"),
    pytest.param('echo "::add-mask::{}"\n', "hunter two", id="github-mask-quoted"),
    pytest.param("machine h login jane password {}\n", "hunter", id="netrc-word"),
    pytest.param('"name": "Cookie", "value": "sid={}"', HEX[:32], id="cookie-in-har"),
    pytest.param("Passwort: {}\n", "s3cr3t-word", id="german"),
    pytest.param("<Password><Value>{}</Value></Password>", "s3cr3t-word", id="windows-setup"),
    pytest.param("password = <<-EOT\n  {}\nEOT", "s3cr3t-word", id="heredoc"),
    pytest.param(
        "<td>DB_PASSWORD</td>\n<td class='c'><pre>&#x27;{}&#x27;</pre></td>",
        "s3cr3t-w0rd",
        id="html-row",
    ),
    pytest.param(
        '<td class="e">DB_PASSWORD </td><td class="v">{} </td></tr>', "s3cr3t-w0rd", id="phpinfo"
    ),
    pytest.param("\r\n> PASS {}\r\n< 230 in", "s3cr3t-word", id="ftp"),
    pytest.param(
        "\r\n> AUTH PLAIN {}\r\n< 235", base64.b64encode(b"\0me\0s3cr3t").decode(), id="smtp"
    ),
    pytest.param("{{X-Api-Key=[{}], Accept=[x]}}", "s3cr3t-w0rd", id="java-header"),
    pytest.param("map[X-Api-Key:[{}] Accept:[x]]", "s3cr3t-w0rd", id="go-header"),
    pytest.param(
        'http.Header{{"X-Api-Key":[]string{{"{}"}}}}', "s3cr3t-word", id="go-header-typed"
    ),
    pytest.param("get(u, auth=('jane', '{}'))", "s3cr3t-word", id="requests"),
    pytest.param("Command ['mysql', '-uroot', '-p{}'] failed", "s3cr3t-word", id="list-glued-flag"),
    pytest.param("['docker', 'login', '-p', '{}']", "s3cr3t-word", id="list-flag"),
    pytest.param('["curl", "-u", "user:{}", "h"]', "s3cr3t-word", id="list-user"),
    pytest.param(
        '"Cmd": [\n  "x",\n  "--requirepass",\n  "{}"\n]', "s3cr3t-word", id="list-on-lines"
    ),
    pytest.param("Setting password to {} for jane", "s3cr3t-w0rd", id="set-to"),
    pytest.param('password was changed to "{}"', "s3cr3t-w0rd", id="changed-to"),
    pytest.param("The password is {}. Bye", "Tr0ub4dor&3", id="told-in-a-sentence"),
    pytest.param("DB_PW={}", "s3cr3t-word", id="short-name"),
    pytest.param('psk="{}"', "s3cr3t-word", id="wifi"),
    pytest.param("secret_key_base: {}", HEX, id="rails"),
    pytest.param("client-key-data: {}", FILLER, id="kubeconfig"),
    pytest.param("VAULT_SECRET_ID={}", "a88279e9-29a1-ac59-d2ec-88adc52d6476", id="secret-id"),
    pytest.param(
        '"auth": "{}"', base64.b64encode(b"abcd:efghij").decode(), id="docker-credentials"
    ),
    pytest.param("see {} x", HEX[:32] + "-0123abcd-4567ef89", id="mailgun"),
    pytest.param("auth_token_prod={}", FILLER[:20], id="neutral-ending"),
    pytest.param("STRIPE_KEY={}", "abcdefAB12cdefABCDEFcd", id="suspect-mixed-case"),
    pytest.param("Authorization: {}", FILLER * 9, id="endless-header"),
    pytest.param("Bearer {}", FILLER * 9, id="endless-bearer"),
    pytest.param("Cookie: a={}", FILLER * 9, id="endless-cookie"),
    pytest.param("https://{}", "hooks.slack.com/serv" + "ices/" + FILLER * 9, id="endless-webhook"),
    pytest.param("password={}\\tend", FILLER * 9, id="endless-to-an-escape"),
    pytest.param('{{\\"password\\": \\"{}\\"}}', FILLER * 9, id="endless-to-an-escaped-quote"),
    pytest.param("key {} x", "7Q~" + FILLER[:34], id="azure-client-secret"),
    pytest.param("Client Secret: {}", FILLER[:20], id="spaced-name"),
    pytest.param("GET /v1?x=1&access_token={}&page=2", FILLER[:20], id="query"),
    pytest.param("> Authorization: Bearer {}", FILLER, id="bearer-header"),
    pytest.param("curl -H 'Authorization: token {}' x", HEX[:40], id="token-header"),
    pytest.param("{{Authorization={},", "UnYUQg_8H13FtrFcs", id="header-in-a-map"),
    pytest.param("{{Authorization: {};", "k7.UnYUQg8H13$FtrFcs", id="header-in-an-object"),
    pytest.param("X-Api-Key: {}", FILLER[:20], id="api-key-header"),
    pytest.param(
        "Basic {}", base64.b64encode(b"user:s3cr3t-password").decode(), id="basic-credentials"
    ),
    pytest.param("Cookie: sessionid={}\r\nHost: x", HEX[:32], id="cookie"),
    pytest.param("Set-Cookie: sid={}; Path=/", HEX[:32], id="set-cookie"),
    pytest.param("postgres://user:{}@db:5432/app", "p%40ss-w0rd!", id="url-password"),
    pytest.param("redis://:{}@cache:6379/0", "p4ssw0rd", id="url-password-alone"),
    pytest.param("https://{}@git.example/x.git", FILLER[:36], id="url-token"),
    pytest.param("postgres://user:{}", "p4ssw0rd", id="url-cut-off"),
    pytest.param("postgres://user:{}@db:5432/app", "p4ss/w0rd/x", id="url-password-with-a-slash"),
    pytest.param("https://{}", "hooks.slack.com/serv" + "ices/T0/B0/" + FILLER, id="webhook"),
    pytest.param("{}", GITHUB, id="github"),
    pytest.param("/tmp/{}.txt", OPENAI, id="token-in-path"),
    pytest.param("x\\n{}\\ny", GITHUB, id="token-after-escaped-newline"),
    pytest.param("url=%3D{}", GITHUB, id="token-after-percent"),
    pytest.param("key {} used", HEX[:32] + "-us" + "12", id="mailchimp"),
    pytest.param("id A" + "{}", "KIA" + "ABCDEFGHIJKLMNO2", id="aws-key-id"),
    pytest.param("see {}", JWT, id="json-web-token"),
    pytest.param('{{"name": "DB_PASSWORD", "value": "{}"}}', "hunter2", id="pair-on-a-line"),
    pytest.param('{{"name":"DB_PASSWORD","value":"{}"}}', "hunter2", id="pair-in-compact-json"),
    pytest.param("token                {}\n", GITHUB[4:], id="wide-table"),
    pytest.param("password: |\n  {}\nuser: x", "hunter2", id="yaml-block"),
    pytest.param("- password: >-\r\n    {}\r\n  user: x", "hunter2", id="yaml-folded-block"),
    pytest.param('+ password = null -> "{}" # forced', "s3cr3t-word", id="plan-from-nothing"),
    pytest.param(
        '+ name  = "DB_PASSWORD"\n+ value = "{}"', "s3cr3t-word", id="plan-name-and-value"
    ),
    pytest.param('"db_password": {{"value": "{}", "type": "x"}}', "s3cr3t-word", id="object"),
    pytest.param(
        '"db_password": {{\n  "sensitive": true,\n  "type": "string",\n  "value": "{}"\n}}',
        "s3cr3t-word",
        id="object-with-fields",
    ),
    pytest.param(
        '"Name": "/app/password", "Type": "SecureString", "Value": "{}" }}',
        "s3cr3t-word",
        id="pair-with-fields",
    ),
    pytest.param(
        "ParameterKey=DbPassword,ParameterValue={}", "s3cr3t-word", id="pair-of-parameters"
    ),
    pytest.param('["password"]=>\n  string(11) "{}"\n', "s3cr3t-word", id="php-dump"),
    pytest.param('["token":"App\\User":private]=> string(9) "{}"', "s3cr3t-word", id="php-object"),
    pytest.param("[password:protected] => {}\n", "s3cr3t-word", id="php-print"),
    pytest.param(r"{{\\\"password\\\": \\\"{}\\\", \\\"a\\\":1}}", "s3cr3t-word", id="json-thrice"),
    pytest.param(r"\\\\\\\"token\\\\\\\":\\\\\\\"{}\\\\\\\"", "s3cr3t-word", id="json-four-times"),
    pytest.param(r"{{\"password\":\"{}\"}}", r"a\\\"b1c2d3", id="escaped-quote-in-escaped-json"),
    pytest.param("&quot;password&quot;: &quot;{}&quot;", "s3cr3t-word", id="html"),
    pytest.param("q=%22password%22%3A%22{}%22&x=1", "s3cr3t-word", id="json-in-an-address"),
    pytest.param(r"\u0022password\u0022:\u0022{}\u0022", "s3cr3t-word", id="unicode-quotes"),
    pytest.param("&quot;token&quot;:&quot;{}&quot; end", FILLER * 9, id="endless-to-an-html-quote"),
    pytest.param(r"\\\"token\\\":\\\"{}\\\" end", FILLER * 9, id="endless-to-escapes"),
    pytest.param("token = \n    '{}'", "s3cr3t-word", id="on-the-next-line"),
    pytest.param('"tokens": [\n  "{}"\n], "a": 1', FILLER, id="list"),
    pytest.param('"unseal_keys_hex": ["{}"], "root": 1', f'{HEX}", "{HEX}', id="list-of-two"),
    pytest.param("password: &anchor {}\n", "s3cr3t-word", id="yaml-anchor"),
    pytest.param("password: !!str {}\n", "s3cr3t-word", id="yaml-type"),
    pytest.param('password: Password("{}")', "s3cr3t-word", id="rust-struct"),
    pytest.param("<password><![CDATA[{}]]></password>", "s<3cr3t-word", id="cdata"),
    pytest.param('<entry key="db.password">{}</entry>', "s3cr3t-word", id="xml-entry"),
    pytest.param("<key>password</key>\n\t<string>{}</string>", "s3cr3t-word", id="plist"),
    pytest.param("<name>s3.secret.key</name><value>{}</value>", "s3cr3t-word", id="hadoop"),
    pytest.param("Unseal Key 1: {}\n", FILLER + "/a=", id="vault-unseal-key"),
    pytest.param("a temporary password is generated for root@h: {}", "s3cr3t-w?", id="mysql-first"),
    pytest.param("**Password**: {}", "s3cr3t-word", id="markdown-before-the-colon"),
    pytest.param("openssl rsa -passin pass:{} -in k", "s3cr3t-word", id="openssl"),
    pytest.param("setenv DB_PASSWORD {}", "s3cr3t-word", id="csh"),
    pytest.param("fastcgi_param DB_PASSWORD {};\n", "s3cr3t-word", id="nginx"),
    pytest.param("gh secret set DB_TOKEN --body {}", "s3cr3t-word", id="setting-with-a-flag"),
    pytest.param("user: jane pass: {} ok", "s3cr3t-w0rd", id="pass-alone"),
    pytest.param("password   {}\n", "Tr0ub4dor&3!", id="blanks"),
    pytest.param("password {}\nuser x", "Tr0ub4dor&3!", id="one-blank"),
    pytest.param("  DB_PASSWORD                 {}\r\n", "correct-horse-7", id="wide-list"),
    pytest.param("token\t{}\n", "correct-horse-7", id="tab"),
    pytest.param("with password {}, then", "Tr0ub4dor&3!", id="in-a-sentence"),
    pytest.param("machine h\nlogin me\n\tpassword {}\n", "hunter&two!x", id="netrc-on-lines"),
    pytest.param("| password | {} |", "Tr0ub4dor&3!", id="cell-with-punctuation"),
    pytest.param("\u2502 password \u2502 {} \u2502\n", "Tr0ub4dor&3!", id="drawn-cell"),
    pytest.param(" password | {}\n", "Tr0ub4dor&3!", id="record-of-psql"),
    pytest.param("CREATE ROLE a LOGIN PASSWORD '{}';", "hunter", id="sql-role"),
    pytest.param("alter user a with encrypted password '{}'", "hunter", id="sql-user"),
    pytest.param('failed with password "{}".', "s3cr3t-word", id="quoted-in-a-sentence"),
    pytest.param(
        'const k = process.env.API_KEY || "{}";', "s3cr3t-word", id="fallback-in-javascript"
    ),
    pytest.param(
        "const password = process.env.DB_PASSWORD ?? '{}';", "s3cr3t-word", id="fallback-for-null"
    ),
    pytest.param(
        "jwtSecret:\n    process.env.JWT_SECRET ||\n    '{}',",
        "s3cr3t-word",
        id="fallback-on-the-next-line",
    ),
    pytest.param(
        "password = os.environ.get('DB_PASSWORD') or '{}'", "s3cr3t-word", id="fallback-in-python"
    ),
    pytest.param(
        "SECRET_KEY = config('SECRET_KEY', default='{}')", "s3cr3t-word", id="fallback-by-name"
    ),
    pytest.param("SECRET_KEY = ENV['SECRET_KEY'] || '{}'", "s3cr3t-word", id="fallback-in-ruby"),
    pytest.param("ENV.fetch('DB_PASSWORD') {{ '{}' }}", "s3cr3t-word", id="fallback-in-a-block"),
    pytest.param("$pass = getenv('DB_PASS') ?: '{}';", "s3cr3t-word", id="fallback-in-php"),
    pytest.param(
        'let t = env::var("TOKEN").unwrap_or("{}".to_string());',
        "s3cr3t-word",
        id="fallback-in-rust",
    ),
    pytest.param(
        'let t = env::var("TOKEN").unwrap_or_else(|_| "{}".into());',
        "s3cr3t-word",
        id="fallback-in-a-closure",
    ),
    pytest.param('const token = opts.t || "{}"', "s3cr3t-word", id="fallback-of-an-expression"),
    pytest.param("`API_KEY` is `{}`", FILLER[:20], id="code-in-a-sentence"),
    pytest.param("set `DB_PASSWORD` to `{}`", "s3cr3t-word", id="code-set-to"),
    pytest.param("`DB_PASSWORD` (`{}`)", "s3cr3t-word", id="code-in-brackets"),
    pytest.param("- **API key**: `{}`", FILLER[:20], id="bold-with-a-blank"),
    pytest.param("API_KEY \u2192 {}", FILLER[:20], id="arrow"),
    pytest.param("DB_PASSWORD \u2014 {}", "s3cr3t-w0rd", id="dash"),
    pytest.param("? API Key: \u00bb {}\n", FILLER[:20], id="prompt-with-a-sign"),
    pytest.param("\u2714 Enter your API key \u00b7 {}\n", FILLER[:20], id="answered-prompt"),
    pytest.param("AWS Secret Access Key [None]: {}\n", FILLER, id="prompt-with-the-value-before"),
    pytest.param("API key (optional): {}\n", FILLER[:20], id="prompt-with-a-remark"),
    pytest.param("Password for 'https://jane@h': {}\n", "s3cr3t-word", id="prompt-of-git"),
    pytest.param(
        'variable "db_password" {{\n  type    = string\n  default = "{}"\n}}',
        "s3cr3t-word",
        id="hcl-block",
    ),
    pytest.param('password = sensitive("{}")', "s3cr3t-word", id="hcl-call"),
    pytest.param('gh secret set DB_TOKEN -b"{}"', "s3cr3t-word", id="setting-with-a-short-flag"),
    pytest.param('vault put --name DbPassword --value "{}"', "s3cr3t-word", id="value-with-a-flag"),
    pytest.param('gh secret set DB_PASSWORD <<< "{}"', "s3cr3t-word", id="here-string"),
    pytest.param("set DB_PASSWORD to {}\n", "s3cr3t-w0rd", id="set-to"),
    pytest.param("SET PASSWORD FOR 'a'@'b' = PASSWORD('{}')", "s3cr3t-word", id="sql-set-password"),
    pytest.param("redis-cli --pass {} ping", "s3cr3t-word", id="flag-called-pass"),
    pytest.param("REDISCLI_AUTH={}", "hunter", id="redis-variable"),
    pytest.param(
        "secret_id               {}\n", "6d3f1a2b-9c4e-4f7a-8b1d-2e5f7a9c0b3d", id="vault-secret-id"
    ),
    pytest.param(
        'MNEMONIC="{}"', " ".join(["legal", "winner", "thank"] * 4), id="words-of-a-wallet"
    ),
    pytest.param("Seed phrase: {}\n", " ".join(["legal", "winner", "thank"] * 4), id="seed-phrase"),
    pytest.param(
        "document.cookie = 'PHPSESSID={}'", FILLER[:26].lower(), id="cookie-without-a-header"
    ),
    pytest.param("connect.sid={}; Path=/", FILLER, id="cookie-of-express"),
    pytest.param('curl -b "id={}" https://h', FILLER[:20], id="cookie-for-curl"),
    pytest.param('HTTPBasicAuth(\n    "jane", "{}"\n)', "hunter", id="login-in-a-call"),
    pytest.param('new NetworkCredential("a@b", "{}");', "hunter", id="login-in-an-object"),
    pytest.param('password <- "{}"', "hunter", id="arrow-of-r"),
    pytest.param('auth: {{ user: "jane", pass: "{}" }}', "s3cretpw", id="pass-quoted"),
    pytest.param("user=jane pass={}", "s3cretpw", id="pass-assigned"),
    pytest.param('creds: "{}"', "jane:s3cretpw", id="login-as-one-value"),
    pytest.param("The password for `admin` is **{}**.", "Winter2024!", id="told-of-a-user"),
    pytest.param('The JWT secret is "{}".', "s3cretpw", id="told-of-a-secret"),
    pytest.param("The password is {}\n", "sunny-Meadow42", id="told-without-quotes"),
    pytest.param("DB_PASSWORD \u2192 {}\n", "sunny-Meadow42", id="arrow-to-a-password"),
    pytest.param("`DB_PASSWORD` (currently `{}`)", "Winter2024!", id="told-in-brackets"),
    pytest.param("| `DB_PASSWORD` | `{}` | database |", "sunny-Meadow42", id="cell-in-code"),
    pytest.param('client.setPassword("{}");', "s3cretpw", id="setter"),
    pytest.param("user.set_password('{}')", "s3cretpw", id="setter-in-python"),
    pytest.param('builder.password("{}")', "s3cretpw", id="setter-in-a-chain"),
    pytest.param('password: []byte("{}"),', "hunter", id="bytes-in-go"),
    pytest.param('password_confirmation: "{}"', "hunter", id="password-again"),
    pytest.param("ALTER LOGIN sa WITH PASSWORD = N'{}'", "hunter two", id="sql-server"),
    pytest.param("user%5Bpassword%5D={}&x=1", "hunter", id="encoded-form"),
    pytest.param(
        '<wsse:Password Type="a#b">{}</wsse:Password>', "hunter", id="element-with-attributes"
    ),
    pytest.param(
        '"adminPassword": {{"type": "securestring", "defaultValue": "{}"}}', "hunter", id="arm"
    ),
    pytest.param('(b"x-api-key", b"{}")', FILLER, id="bytes-as-arguments"),
    pytest.param("cqlsh -u cass -p {} host", "s3cretpw", id="cqlsh"),
    pytest.param("rootpw {}\n", "sunny-Meadow42", id="line-of-settings"),
    pytest.param("${{TOKEN:-{}}}", "s3cretpw", id="default-in-a-shell"),
    pytest.param("password={}", "yellow:trust:tiger", id="words-with-colons"),
    pytest.param("secret={}\n", "8*e+Pb?RR*BC", id="signs"),
    pytest.param("x: jwtSecret: {}\n", "$!*cc1KXEV", id="begins-with-a-dollar"),
    pytest.param('token = "{}"', ";9R0!Iqz/~oMH", id="begins-with-a-semicolon"),
    pytest.param("cmd --secret-key '{}' -x", "-g9&mIRgH&", id="begins-like-an-option"),
    pytest.param("auth = {}\n", HEX[:40].upper(), id="capital-hex"),
    pytest.param('secret: "{}"', "Dragon...2024", id="dots-within"),
    pytest.param(
        'p.setProperty("MASTER_KEY", "{}");', "chEfgtVerPQrstU.hWtVgkUK", id="letters-alone"
    ),
    pytest.param("aws configure set aws_secret_access_key {}\n", FILLER[:40], id="aws-configure"),
    pytest.param("doppler secrets set DB_PASSWORD {}\n", "hunter22", id="secrets-set"),
    pytest.param('echo "TOKEN="{} >> .env', "aB3dE5gH7jK9", id="quote-that-closes-before-it"),
    pytest.param("USER: jane\nPASS: {}\n", "xK9#mP2$vL7q", id="pass-in-capitals"),
    pytest.param("['app', '--password', '{}']", "a1b2c3d4", id="word-behind-an-option"),
    pytest.param("Server=db;Uid=sa;Pwd={};Database=x", "password1", id="connection-string"),
    pytest.param("CREATE USER x WITH PASSWORD '{}'", HEX[:16].upper(), id="capital-hex-in-sql"),
    pytest.param("AZURE_STORAGE_KEY={}", "/" + FILLER + FILLER + "==", id="begins-with-a-slash"),
    pytest.param(
        'getenv("GMAIL_APP_PASSWORD", "{}")', "qwvz hrty plmk nbxs", id="four-groups-of-letters"
    ),
    pytest.param(
        "define('FASTLANE_PASSWORD', '{}');", "qwvz-hrty-plmk-nbxs", id="four-groups-with-hyphens"
    ),
    pytest.param('if (apiKey == "{}") {{', "swordfish", id="compared-with-a-word"),
    pytest.param('{{"password": "{}"}}', " Abc123$xyz", id="begins-with-a-blank"),
    pytest.param("authorization:       {}\n", FILLER, id="header-with-many-blanks"),
    pytest.param("the password is {}\n", "P\u00e4ssw0rd9!", id="umlaut"),
    pytest.param("DB_PASSWORD={}\n", "aB3(x9$kQ2z", id="looks-like-a-call"),
    pytest.param('"password": "{}"', "<hT6}}aW9)q", id="looks-like-a-placeholder"),
    pytest.param("APP_KEY={}", f"base64:{FILLER}=", id="laravel"),
    pytest.param("https://h/b?sv=1&sig={}&se=2", FILLER, id="signed-address"),
    pytest.param("https://h/b?X-Amz-Signature={}", HEX, id="signed-address-of-aws"),
    pytest.param("Token issued: {}\n", FILLER, id="token-issued"),
    pytest.param("ConvertTo-SecureString '{}' -AsPlainText -Force", "hunter two", id="powershell"),
    pytest.param(
        'ConvertTo-SecureString -String "{}" -AsPlainText', "hunter", id="powershell-by-name"
    ),
    pytest.param('ado_pat = "{}"', FILLER, id="personal-access-token"),
    pytest.param("curl --cookie id={} https://h", FILLER[:20], id="cookie-with-a-long-flag"),
    pytest.param('"password":"{}"', "$" + FILLER[:12], id="dollar-in-json"),
    pytest.param("password = '{}'", "!" + FILLER[:12], id="exclamation-mark-in-quotes"),
    pytest.param("DB_PASSWORD={}\n", "/" + FILLER[:16], id="slash-in-a-line-of-settings"),
    pytest.param("DB_PASSWORD={}\n", "{" + FILLER[:16], id="brace-in-a-line-of-settings"),
    pytest.param("DB_PASSWORD={}\nB=2", f"{FILLER[:6]}'{FILLER[6:12]}", id="quote-inside"),
    pytest.param("password: {}\n", f"{FILLER[:6]}`{FILLER[6:12]}", id="backtick-inside"),
    pytest.param("ALTER USER a PASSWORD '{}';", "s3cr''3t-word", id="quote-doubled"),
    pytest.param("DB_PASSWORD='{}' run", "s3cr'\\''3t-word", id="quote-of-a-shell"),
    pytest.param("got bearer {} from", "aB3dE5gH", id="bearer-in-lower-case"),
    pytest.param("authorization: bearer {}", "kqzhwvbrtxplmjdygcfn", id="bearer-of-letters"),
    pytest.param("| password | {} |", "aB3*dE5gH7", id="cell-with-a-star"),
    pytest.param("apiKey: {}\n", "kqzhwvbrtxplmjdygcfn", id="key-of-letters"),
    pytest.param("sonar-scanner -Dsonar.login={} -X", "s3cr3t-word", id="sonar"),
    pytest.param(
        "define( 'AUTH_KEY',         '{}' );",
        "x/3. mn}PQ/C4vkR.B_5ICpe&yO[xJR,k~{q1L^I7S=1L1_0e0tza9|%3-Ce6;^",
        id="wordpress",
    ),
    pytest.param("define('NONCE_SALT', '{}');", FILLER, id="salt-of-wordpress"),
    pytest.param('{{"username":"jane","key":"{}"}}', HEX[:32], id="kaggle"),
    pytest.param(
        "git remote: https://x-access-token:{}@github.com/a/b", GITHUB, id="remote-of-github"
    ),
    pytest.param("https://oauth2:{}@gitlab.com/a/b.git", FILLER[:20], id="remote-of-gitlab"),
    pytest.param(
        "https://gitlab-ci-token:{}@gitlab.com/a/b.git", FILLER[:20], id="remote-of-a-job"
    ),
]
# A password may be digits alone, in every place.
NUMBERS = [
    *("password={}", "Password: {}", '"password":"{}"', '"password": {},', "'password' => '{}'"),
    *("<password>{}</password>", "--password {} x", "DB_PASSWORD: {}", "password = '{}'"),
    *("create user a identified by '{}'", "mysql -u root -p{} db", "sshpass -p {} ssh h"),
    *("curl -u jane:{} h", "machine h login me password {}", "requirepass {}", 'setPassword("{}")'),
    *("define('DB_PASSWORD', '{}')", "- name: DB_PASSWORD\n  value: '{}'", "| password | {} |"),
]


@each_row(("text", "secret"), SECRETS)
def test_removes_the_secret_and_nothing_before_it(text: str, secret: str) -> None:
    """A secret is replaced by the mark, in whole reads and byte by byte."""
    before, _, after = text.format("\0").partition("\0")

    out = redact_both_ways(text.format(secret).encode()).decode()

    assert secret not in out
    assert "[REDACTED]" in out
    assert out.startswith(before.rstrip("A"))
    assert after[-6:] in out


@pytest.mark.parametrize("number", ["4711", "123456789012"])
def test_a_password_of_digits_alone_is_removed(number: str) -> None:
    """While what counts tokens or attempts, or is too short, stays."""
    for text in NUMBERS:
        out = redact_both_ways(text.format(number).encode()).decode()
        assert out == text.format("[REDACTED]")
    counts = f"max_tokens={number} tokens: {number} password_length={number} api_key: 12"
    assert redact_both_ways(counts.encode()).decode() == counts


@pytest.mark.parametrize("after", ["next line\r\n", "\r\n  indented\r\n"])
def test_a_list_that_was_cut_off_ends_with_its_lines(after: str) -> None:
    """What follows half a list of secrets shows."""
    text = f'"tokens": [\r\n  "{FILLER}",\r\n  "{HEX}"\r\n{after}'

    out = redact_both_ways(text.encode()).decode()

    assert out == f'"tokens": [\r\n  "[REDACTED]\r\n{after}'


LINE_LEADS = [
    *(
        "     3\u2192",
        "    12\t",
        "3:",
        ".env:",
        ".env:3:",
        "config/.env-3-",
        "app-1  | ",
        "+",
        "> ",
    ),
    *("2026-11-25T10:22:03Z ", "Nov 25 10:22:03 host app[1]: ", "  \u23bf  ", "\u2502 ", "export "),
]


@each_row("lead", LINE_LEADS)
@each_row("name", ["DB_PASSWORD=", "API_TOKEN="])
def test_a_variable_with_any_character_behind_a_prefix(lead: str, name: str) -> None:
    """A line of settings is one with a number, a file, a service or a date before it, too."""
    out = redact_both_ways(f"A=1\n{lead}{name}a,b;c&d)e|f<g>1\nB=2\n".encode()).decode()

    assert out == f"A=1\n{lead}{name}[REDACTED]\nB=2\n"


INLINE = [
    # (text, the same without its secret)
    ("level=info password=Tr0ub4dor&3! user=x", "level=info password={} user=x"),
    ("user=a&password=s3cr3t&b=1", "user=a&password={}&b=1"),
    ("x --password=a,b;c&d e", "x --password={} e"),
    ("(DB_PASSWORD=a1,b2, PORT=1)", "(DB_PASSWORD={}, PORT=1)"),
    ("see ?token=s3cr3t&done", "see ?token={}&done"),
    ("f(password=s3cr3t, n=1)", "f(password={}, n=1)"),
    ("password=our_secret_password n=1", "password={} n=1"),
    ("let x = {password:s3cr3t};", "let x = {{password:{}}};"),
]


@each_row(("text", "expected"), INLINE)
def test_a_value_within_a_line_ends_where_it_should(text: str, expected: str) -> None:
    """What separates values ends one; the same sign within a value does not."""
    out = redact_both_ways(f"{text}\n".encode()).decode()

    assert out == expected.format("[REDACTED]") + "\n"


@pytest.mark.parametrize(
    "text",
    [
        '  ~ password = "{}" -> "{}" # forces replacement\n',
        'DB_PASSWORD: "{}" \u2192 "{}"\n',
        "I changed the password from `{}` to `{}`.\n",
        "`DB_PASSWORD` was `{}`, now `{}`.\n",
    ],
)
def test_what_a_value_was_and_what_it_becomes_are_removed(text: str) -> None:
    """A plan shows the value of a secret twice."""
    out = redact_both_ways(text.format("0ld-value", "n3w-value").encode()).decode()

    assert out == text.replace("{}", "[REDACTED]")


HARMLESS = [
    "password:",
    "Password: ",
    "password=",
    "password=***",
    '"jsonwebtoken": "^9.0.2", "is-password": "~1.x", "token": "^2.0.0-rc.1"',
    "api_key=<your-api-key>",
    "token=None",
    "token = null,",
    "password = os.environ['DB_PASSWORD']",
    "password = getpass.getpass('Password: ')",
    "token: str",
    "def login(user: str, password: str) -> None:",
    "auth = username",
    "secret: secretOrPrivateKey",
    "permissions: id-token: write",
    "API_TOKEN=$TOKEN make",
    "API_TOKEN=${{ secrets.API_TOKEN }}",
    "Authorization: Bearer $TOKEN",
    "Authorization: Bearer <token>",
    "a Bearer token is required",
    "Basic usage of the command",
    "max_tokens=4096 prompt_tokens: 812",
    '"nextPageToken": "CAUQAA"',
    "tokenizer=fast token_type=bearer token_count=12",
    "public_key=abc primary_key=id sort_key=created_at",
    "keyboard=us monkey=1 author=jane passed=12",
    "pwd=/home/jane/src",
    "--password-stdin --token TOKEN",
    "aws_secret_access_key is not set",
    "https://localhost:8080/x?page=2 redis://redis:6379/0",
    "ssh://git@host/x.git mailto:a@b.c",
    "postgres://<user>:<password>@host/db",
    "http://${HOST}:${PORT}/a@b http://h:PORT/x and mail to jane@x",
    "sha256:" + HEX,
    "Authorization header is missing",
    "monkeys, Bearer: token",
    "token=Some(value)",
    "stripe_key: aaaaaaaaAAAAAAAAbbbb",
    "auth: dG9rZW46",
    "docker run -p 8080:80 -u 1000:1000 image -a x -w /src",
    "mysql -uroot -p db",
    "ssh -p 2222 host; npm login && tool -p fast",
    'curl -u "$USER:$PASS" https://h/ && curl -u jane https://h/',
    "| password | string | what it is |",
    "| api_key | `API_KEY` | from the environment |",
    "secret: &str, api_key: Option<String>, token: &[u8]",
    "signing_key: SigningKey<Sha256>",
    "password: !Ref DbPassword",
    "'password' => 'required|min:8'",
    "TOKEN=`gcloud auth print-access-token`",
    "!e.token=t,e.password===r",
    "password: process.env.DB_PASS!",
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:name-AbCdEf",
    "set token next; set -x; ENV TOKEN_FILE /run/secrets/token",
    '<input name="password" type="password" value="">',
    HEX[:32] + "-0123abcd is a name",
    "a88279e9-29a1-ac59-d2ec-88adc52d6476",
    '"integrity": "sha512-' + FILLER + FILLER + '=="',
    "npm_lifecycle_event=test npm_config_registry",
    '<div class="sk-circle-fade-dot sk-center">',
    "disk-usage-by-directory-and-file-type.txt",
    "-----BEGIN CERTIFICATE-----\n" + FILLER + "\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\n" + FILLER + "\n-----END PUBLIC KEY-----",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + FILLER[:30] + " jane",
    "test_login_with_password_and_token_refresh PASSED",
    "----------------- markdown -----------------",
    "50% \r60% \r100%\r\n",
    "\x1b[38;5;12mblue\x1b[0m \x1b]8;;https://a.b/c\x1b\\link\x1b]8;;\x1b\\ \x1b[2K\x1b[?25l\x1b(B",
    "h\u00e9llo w\u00f6rld \u65e5\u672c\u8a9e",
    "\ufeffx\0y\x07z",
    "Authorization: Bearer <token>\nWWW-Authenticate: Bearer realm",
    "usage: tool login <password> [options]\n  <token> then press enter",
    "Cache hit for restore-key: Linux-npm-" + HEX[:32],
    "Client(client_secret=client_secret, token=auth_token, hmac_secret=hmacSecret)",
    "Client(\r\n    password=db_password,\r\n    signing_key=signingKey,\r\n)",
    "def f(token: str, api_key: str = None, db_password: bytes): pass",
    "@password = @db_password\r\nlambda token: token.value: 1",
    "'proxy-authorization': true,\r\nToken: '#dcdccc',",
    "if len(password) == 0: return; elif token == 0x22: pass; while token == -1: wait()",
    "password is required; the password field; password reset",
    "password   The password of the account\n  token    A token, e.g. x1\n",
    "token    string\r\npassword  varchar(255)\r\nsecret-tool  0.18.4-2\r\n",
    "my-secret   Opaque   1      5d\ndb-password   kubernetes.io/basic-auth   2   5d2h",
    "-token \u2502  y",
    "| password | varchar(255) | NO |\n| token | utf8mb4 | base64url |",
    " password | email \n----------+-------\n",
    "unexpected token 'export1' in x; token \"a1b2c3\"",
    "the password 'field' and password \"name\" are labels",
    "revoked token 3fa8b1c2, deleted secret web-config-2, renewed key id v1.2.3",
    "token e2e: 2026-11-25T10:22:03Z 1h30m15s",
    'def login(password):\n    """Log in, 2 times."""\n',
    '"password": {"type": "string", "minLength": 8}',
    "pass: 12, fail: 3; pass: all 4 tests",
    "token=[0-9a-fA-F]+; key: [A-Za-z0-9]{8}; secret=[u8; 32]; password=[hidden-1, x]",
    "auth=(user, password); auth=('user', 'pass'); auth = (\"Basic\", \"x\")",
    "<tr><th>Password</th><td>The password, 8 letters</td></tr>",
    "['a', '-p', 'b'] '-u' and \"-p\"; PASS src/app.test.js\n> PASS\n",
    "the token is required to be set; password was reset to default; secret is 5 to 8 letters",
    '"csrf-token",\n    "MLKEM768X25519PublicKey",\n',
    "objects are identified by 'name'; sorted by \"date\"; users identified by $1",
    "> auth and AUTH LOGIN; the key-mask:: is x; > auth \r\n",
    "the net effect of -U and -P here; docker run -p 80:80 -P image -U x",
    "smbclient -U jane //h/s; curl -U jane h; http -a jane h; 7z x -p",
    '<add key="Password" value="' + FILLER[:10] + '" />',
    "~ password = (sensitive value) -> (known after apply)",
    'secret "app" created; secrets: ["db", "cache"]',
    "`--token TOKEN`, `--token-file FILE`, `--password PASSWORD`",
    "libsecret-1-0:amd64  0.20.5-3\nii  passwd  1:4.13+dfsg1-1+b1  amd64  change passwords",
    "private_key: ed25519.Ed25519PrivateKey, passphrase: &#x3C;string>, token: &lt;any&gt;",
    "f(x, password=KEY_PASSWORD)\nheaders['proxy-authorization'] === `Basic ${x}`",
    '"signatures": [{"keyid": "SHA256:x", "sig": "MEU' + FILLER + '"}]',
    "add_argument('--password', '-p', type=str); option('--token', '-t', 'x'); ['--api-key', '-k']",
    'read -s -p "Password: " DB_PASSWORD; printf \'Password: \'; read -r x; echo "Token: "; a',
    'x << "Token: " << token; echo "Token: " . $token . "n"; Write-Host "Password:" $P',
    "${API_TOKEN:?API_TOKEN must be set} ${TOKEN:-$(cat f1)} ${KEY:-$OTHER_KEY} ${TOKEN:+-H x1}",
    '"current-password", "new-password", "one-time-code"; ["a/prompt_pwd", "a/psub"]',
    "storageKey = \"vite-ui-theme\"; const STORAGE_KEY = 'todos-vuejs-2.0'",
    "user.signingkey=3AA5C34371567BD2\nsigningKey: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    "sk-ssh-ed25519-cert-v01@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com",
    "const BEARER = 'Bearer'; OAUTH2_JWT_BEARER = 2",
    "existingSecret: app-db-secret1; --secret=projects/my-project/secrets/db1/versions/2",
    "#<Token:0x000055d0c8a0b1c8>; token=0x7ffd3c2b1a00",
    "OPENAI_API_KEY=sk-...; api_key: sk-ant-****; token: abc...xyz; https://u:xxxxx@host/",
    "NOPASSWD:ALL; io.jsonwebtoken:jjwt-api:0.12.3; 'password' => 'hashed', password: yes/no",
    "token: i64, secret: Uint8Array, private_key: X25519PrivateKey, auth=OAuth2PasswordBearer",
    "x = :password2, %(password1)s; password: 8+ characters",
    "password: 'auth.password', const SET_PASSWORD = 'auth/SET_PASSWORD'; Token: 3/10",
    'printf("token=%s%n", t); "user_pass = %s:%s"; "Cannot open $pwd: $!"',
    "token <- value; secret <- tokens; ConvertTo-SecureString $x -AsPlainText",
    "$token->is_start; Token::Ident; if token == 'dtype' and tokens === 'string'",
    "process.env.TOKEN || \"\"; token ?? 'missing'; password || null; const token = a.b || c",
    "the 'token' or 'id_token token'; crv = 'Ed448' if isinstance(key, PrivateKey) else 'Ed448'",
    "`API_KEY` is `string`; set `API_KEY` to `true`; `token` is `null`; `--token` is used",
    "password \u2192 passwordHash; token \u2014 a short word; Password: \u00bb\n? Token: \u00bb \n",
    "key (optional): string; Password (8 letters): required; Token [None]: \n",
    "mnemonic: mov; seed phrase: enter the 12 words; secret phrase: it is one",
    "useAuth('a', 'signs in'); auth(\"a\", b); git add -pat x; pat: *.txt; pat = {FILLER}",
    "sid=1 session=new position=12 account_sid=AC1; curl -b cookies.txt --cookie jar.txt h",
    '["password=", "token="]',
    "password','value =\r",
    '{"name": "password", "value": "", "value": ""}',
    "PASS: ld-elf/compress1a\nPASS: test_login2",
    "the 'passwd:' and 'group:' lines; x \"Token: \", $t->dump; log('the token: ' . s(x1[i]))",
    'the "Authorization:" header, the "Proxy-Authorization:" header; Use "<password>" instead.',
    "Authorization: headers are not forwarded",
    "* auth.c (check_password): Ed448 means EdDSA.",
    "(color_pass): ...here. exports.Socks5Auth = exports.Socks4Response = x",
    "signing key " + HEX[:40].upper() + " (key: 0x" + HEX[:16].upper() + ")",
    "gpg --install-key " + HEX[:40].upper(),
    "Add API to set PSK Diffie-Hellman parameters; wget --ask-password -user=x",
    "x?op=show;sid=2001/1/25/164540/759; DIGEST_KEY = '1.2.840.113549.1.9.4'",
    "log.info('token', 'getting list'); read('/etc/passwd', 'x'); ['passphrase', 'forward-char']",
    '"trust", "md5", "password", "scram-sha-256", "trust2"',
    "name:passwd:uid:gid:gecos:dir:shell; const UNEXPECTED_TOKEN = /^Unexpected '?(.)'?/i",
    "token: `Basic ${Buffer.from('a:b').toString()}`; ...access $token->tagname...",
    "ftp://[[user][:password]@]host[:port]/; curl --pinnedpubkey 'sha256//ce118b51897f4452dc'",
    "passwd \u53e3\u4ee4\u4f86\u5c0d\u5176\u4e00\u4e00\u9032\u884c\u8a2d\u7f6e",
    "Cache restored from key: Linux-npm-" + HEX,
    '"password": "Mot de passe", "pwd": "Passwort vergessen?"',
    '"password": "\u041f\u0430\u0440\u043e\u043b\u044c", "token": "\u5bc6\u7801"',
    "tokens: [1, 2]; key = [\n  'id',\n]",
    '"?token="+key+"&x=1"; \'&password=\'+pw+\'&a=b\'; url + "?token=" + token + "&x=1"',
    "{ Authorization: authHeader }",
    "{ Authorization: config.jwt_access_token_2 }; { Authorization: _authHeaderForUser1 }",
    "{ headers: { Authorization: token } }; { Authorization: auth_header, n: 1 }",
    'WWW-Authenticate: Bearer error="invalid_token", Bearer resource_metadata="https://h/x"',
    "System.Xml, Version=4.0.0.0, Culture=neutral, PublicKeyToken=" + HEX[:16],
    f"GPG_KEY={HEX[:40].upper()}\nENV GPG_KEY {HEX[:40].upper()}\n",
    "http://[::1]:5173/@vite/client ws://[::]:80/@id http://[fe80::1]:8080/@fs/a",
    '"password": "$DB_PASSWORD", "token": "${TOKEN}", "a": "<your password>", "secret": "(none)"',
    "password: !secret wifi_password\nsecret: !Ref Secret\nDB_PASSWORD=/run/secrets/db_password\n",
    "apiKey: userSettings,\napiKey: ApiKeyProvider\ntoken: CancellationToken\n",
    "| password | * |\n| password | *required* |\n",
    "key1: value1, key2=alpha; cat <<< alpha; login=jane; npg_config_value",
]


@each_row("text", HARMLESS)
def test_leaves_harmless_text_alone(text: str) -> None:
    """Text that only looks like a secret comes out as it went in."""
    raw = text.encode()

    assert redact_both_ways(raw) == raw


@pytest.mark.parametrize("wrapper", ["Some(", "String::from(", "[]string{"])
def test_what_wraps_a_long_value_without_a_quote_goes_with_it(wrapper: str) -> None:
    """Read byte by byte too, it is not out before it proves to be a part of the value."""
    value = f"{wrapper}{FILLER * 9}".encode()

    assert redact_both_ways(b"auth:" + value) == b"auth:[REDACTED]"


@pytest.mark.parametrize(
    "line", ["password: {}", "  db_password: {}", "passwd = {}", "x: dbPwd: {}"]
)
def test_a_password_that_is_a_word(line: str) -> None:
    """Alone behind its name on a line it is one, unless it is an answer, a type or a variable."""
    for end in (b"", b"\n", b"\r\nuser: bob\n"):
        assert redact_both_ways(line.format("opensesame").encode() + end) == (
            line.format("[REDACTED]").encode() + end
        )
        for word in ("required", "string", "String", "passphrase", "input", "secret", "is wrong"):
            text = line.format(word).encode() + end
            assert redact_both_ways(text) == text


LIMITS = [
    pytest.param(GITHUB[:20] + "\r\n" + GITHUB[20:], GITHUB[:20], id="hard-wrapped-by-a-program"),
    pytest.param(GITHUB[:8] + "\x1b[5;9H" + GITHUB[8:16], GITHUB[8:16], id="drawn-by-cursor-moves"),
    pytest.param(f"see {FILLER}", FILLER, id="bare-random-text"),
    pytest.param(f"see {HEX[:36]}NR" + "AL", HEX[:36], id="token-known-by-its-end"),
    pytest.param(
        f"{FILLER[:14]}.atla" + f"sv1.{FILLER}{FILLER}", FILLER[:14], id="token-known-by-its-middle"
    ),
    pytest.param(f"{GITHUB[:9]}\u200b{GITHUB[9:]}", GITHUB[9:], id="characters-of-no-width"),
    pytest.param('<add key="Password" value="s3cr3t!" />', "s3cr3t!", id="setting-in-xml"),
    pytest.param("the password is hunter2", "hunter2", id="told-in-prose"),
    pytest.param(GITHUB[::-1], GITHUB[::-1], id="encoded-in-a-way-of-its-own"),
    pytest.param(
        '{"value": "s3cr3t-word", "name": "DB_PASSWORD"}', "s3cr3t-word", id="value-before-its-name"
    ),
    pytest.param(
        "| user | password |\n|---|---|\n| jane | s3cr3t-word |", "s3cr3t-word", id="table-header"
    ),
    pytest.param("user,password\njane,s3cr3t-word\n", "s3cr3t-word", id="csv-header"),
    pytest.param("echo s3cr3t-word | gh secret set DB_TOKEN", "s3cr3t-word", id="piped-value"),
    pytest.param(f"kind: Secret\ndata:\n  db: {FILLER}\n", FILLER, id="data-in-kubernetes"),
    pytest.param("db.example:5432:app:jane:s3cr3t-word\n", "s3cr3t-word", id="pgpass"),
    pytest.param("sqlplus scott/s3cr3t-word@orcl", "s3cr3t-word", id="login-of-a-kind-of-its-own"),
    pytest.param(f"vault login {FILLER}", FILLER, id="login-with-a-token"),
    pytest.param("openssl enc -k s3cr3t-w0rd", "s3cr3t-w0rd", id="flag-of-one-program"),
    pytest.param("htpasswd -b users jane s3cr3t-w0rd", "s3cr3t-w0rd", id="argument-of-one-program"),
    pytest.param(f"a.test\tTRUE\t/\tTRUE\t17\tsid\t{FILLER}", FILLER, id="jar-of-cookies"),
    pytest.param("deploy --password swordfish", "swordfish", id="word-behind-a-space"),
    pytest.param("apiKey: sunnyMeadow,", "sunnyMeadow", id="key-that-could-be-a-variable"),
    pytest.param("define('LOGGED_IN_SALT', 's3cr3t-word')", "s3cr3t-word", id="one-salt"),
    pytest.param(f"$ az keys list --query value\n{FILLER * 2}==", FILLER, id="key-on-its-own"),
    pytest.param("password: correct horse 7\n", "horse 7", id="blanks-without-quotes"),
    pytest.param("secret: |\n  f1rst-line\n  s3cond-line\n", "s3cond-line", id="block-of-lines"),
    pytest.param('{"d": "' + FILLER + '", "kty": "RSA"}', FILLER, id="json-web-key"),
    pytest.param(
        f"a | {HEADER}\na | {BODY[:64]}\nb | 1 request, 2 ms\na | {BODY[66:130]}\n",
        BODY[66:130],
        id="other-output-within-a-key",
    ),
]


@each_row(("text", "secret"), LIMITS)
def test_stated_limit(text: str, secret: str) -> None:
    """What docs/redaction.md says cannot be removed is indeed not removed."""
    assert secret in RULES.redact(text)
