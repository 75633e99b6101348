"""What secrets look like: the data behind `redact.py`, with no logic but reading its own notation.

A token shape is written as in the user's file of patterns: a literal prefix, one character class
and a count, `acme_[A-Za-z0-9]{20,64}`. The table below takes two liberties that a user does not
have: a count may be open (`{20,}`), and `\\b` at the end says that a longer run is something else.

The lengths are mostly a little below what a vendor documents: a prefix with enough after it is a
token whatever its exact length, and vendors make their tokens longer without asking. Sources: the
vendors' own documentation, GitHub's list of supported secret scanning patterns, and the published
rules of gitleaks, trufflehog, noseyparker, kingfisher and detect-secrets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NOTATION = re.compile(
    r"(?P<prefix>(?:[^\[\]{}()*+?|^$\s\\]|\\[^A-Za-z0-9\s])+)"
    r"\[(?P<alphabet>(?:[^\[\]\\\s^]|\\[\]\[\\^-])+)\]"
    r"\{(?P<shortest>[0-9]{1,5})(?P<comma>,(?P<longest>[0-9]{1,5})?)?\}(?P<end>\\b)?"
)


@dataclass(frozen=True)
class TokenShape:
    """A literal prefix followed by a run of one alphabet.

    Shape: `alphabet` is every byte that may follow, written out. The run has at least `shortest`
    bytes. `ends` says that a run longer than `longest` is no such token. `any_word` says that a run
    that could be a word or an identifier counts too.
    """

    prefix: bytes
    alphabet: bytes
    shortest: int
    longest: int | None = None
    ends: bool = False
    any_word: bool = False


class ShapeError(ValueError):
    """The text is not in the notation of a token shape; the message says what is wrong, for the
    person who wrote it.
    """


def parse_shape(text: str, *, any_word: bool = False) -> TokenShape:
    """Return the shape that `text` describes.

    Raises: ShapeError.
    """
    match = _NOTATION.fullmatch(text)
    if match is None:
        raise ShapeError(
            "expected a literal prefix, one character class and a count,"
            " like acme_[A-Za-z0-9]{20,64}"
        )
    prefix = re.sub(r"\\(.)", r"\1", match["prefix"])
    if not text.isascii():
        raise ShapeError("only ASCII characters can be matched")
    shortest = int(match["shortest"])
    longest = shortest if match["comma"] is None else int(match["longest"] or 0) or None
    if shortest < 1 or (longest is not None and longest < shortest):
        raise ShapeError("the count must be at least 1 and its end not below its start")
    return TokenShape(
        prefix=prefix.encode(),
        alphabet=_spell_out(match["alphabet"]),
        shortest=shortest,
        longest=longest,
        ends=match["end"] is not None,
        any_word=any_word or match["end"] is not None,
    )


def _spell_out(alphabet: str) -> bytes:
    """Return every byte of a character class, by asking `re`, whose rules people know."""
    try:
        member = re.compile(f"[{alphabet}]".encode())
    except re.error as error:
        raise ShapeError(f"the character class is not valid: {error}") from None
    return bytes(code for code in range(0x21, 0x7F) if member.fullmatch(bytes((code,))))


# One shape a line; `#` starts a comment.
BUILT_IN = r"""
# GitHub: classic, OAuth, user-to-server, server-to-server, refresh, fine-grained
ghp_[A-Za-z0-9]{20,}
gho_[A-Za-z0-9]{20,}
ghu_[A-Za-z0-9]{20,}
ghs_[A-Za-z0-9_.-]{20,}
ghr_[A-Za-z0-9]{20,}
github_pat_[A-Za-z0-9_]{22,}
# GitLab: personal, OAuth application, deploy, runner, CI job, trigger, feed, incoming mail, agent,
# workspace, SCIM, feature flags
glpat-[A-Za-z0-9_.=-]{16,}
gloas-[A-Za-z0-9_.=-]{20,}
gldt-[A-Za-z0-9_.=-]{16,}
glrt-[A-Za-z0-9_.=-]{16,}
glrtr-[A-Za-z0-9_.=-]{16,}
glcbt-[A-Za-z0-9_.=-]{16,}
glptt-[A-Za-z0-9_.=-]{16,}
glft-[A-Za-z0-9_.=-]{16,}
glimt-[A-Za-z0-9_.=-]{16,}
glagent-[A-Za-z0-9_.=-]{20,}
glwt-[A-Za-z0-9_.=-]{16,}
glsoat-[A-Za-z0-9_.=-]{16,}
glffct-[A-Za-z0-9_.=-]{16,}
GR1348941[A-Za-z0-9_-]{18,}
# Atlassian, Bitbucket, Trello
ATATT3[A-Za-z0-9_=-]{40,}
ATCTT3[A-Za-z0-9_=-]{40,}
ATSTT3[A-Za-z0-9_=-]{40,}
ATBB[A-Za-z0-9_=.-]{28,}
BBDC-[A-Za-z0-9+/@_-]{40,}
ATTA[a-f0-9]{60,}
# Other forges and code search
sgp_[A-Fa-f0-9_]{32,}
slk_[a-f0-9]{60,}
# AWS: key ids, session tokens, Bedrock, Marketplace, Cognito client secrets
AKIA[A-Z0-9]{16}\b
ASIA[A-Z0-9]{16}\b
ABIA[A-Z0-9]{16}\b
ACCA[A-Z0-9]{16}\b
A3T[A-Z0-9]{17}\b
ABSK[A-Za-z0-9+/=]{60,}
bedrock-api-key-[A-Za-z0-9+/=_-]{16,}
IQoJb3JpZ2lu[A-Za-z0-9+/=]{40,}
FwoGZXIvYXdz[A-Za-z0-9+/=]{40,}
FQoGZXIvYXdz[A-Za-z0-9+/=]{40,}
amzn.mws.[a-f0-9-]{30,}
amzn1.oa2-cs.v1.[a-f0-9]{40,}
# Google: API keys, OAuth clients, access, refresh, Gemini
AIza[A-Za-z0-9_-]{30,}
GOCSPX-[A-Za-z0-9_-]{20,}
ya29.[A-Za-z0-9_.-]{20,}
1//0[A-Za-z0-9_-]{30,}
AQ.Ab8[A-Za-z0-9_-]{30,}
# DigitalOcean, Cloudflare, Fly, Heroku, Netlify, Vercel, Render, Scaleway, Scalingo, Akamai
dop_v1_[a-f0-9]{40,}
doo_v1_[a-f0-9]{40,}
dor_v1_[a-f0-9]{40,}
v1.0-[a-f0-9-]{100,}
cfut_[A-Za-z0-9_-]{30,}
cfat_[A-Za-z0-9_-]{30,}
cfk_[A-Za-z0-9_-]{30,}
fo1_[A-Za-z0-9_-]{30,}
fm1a_[A-Za-z0-9+/=_-]{40,}
fm1r_[A-Za-z0-9+/=_-]{40,}
fm2_[A-Za-z0-9+/=_-]{40,}
HRKU-[A-Za-z0-9_-]{30,}
nfp_[A-Za-z0-9]{30,}
nfc_[A-Za-z0-9]{30,}
nfo_[A-Za-z0-9]{30,}
nfu_[A-Za-z0-9]{30,}
nfb_[A-Za-z0-9]{30,}
vcp_[A-Za-z0-9]{20,}
vci_[A-Za-z0-9]{20,}
vca_[A-Za-z0-9]{20,}
vcr_[A-Za-z0-9]{20,}
vck_[A-Za-z0-9]{20,}
rnd_[A-Za-z0-9]{24,}
SCW[A-Z0-9]{17}\b
tk-us-[A-Za-z0-9_-]{40,}
akab-[a-z0-9-]{32,}
# Alibaba, Tencent, Baidu, Volcengine, Yandex, IBM
LTAI[A-Za-z0-9]{16,}
AKID[A-Za-z0-9]{28,}
ALTAK[A-Za-z0-9]{20,}
AKLT[A-Za-z0-9]{30,}
t1.[A-Za-z0-9_.=-]{80,}
AQVN[A-Za-z0-9_-]{34,}
YC[A-Za-z0-9_-]{38}\b
y0_[A-Za-z0-9_-]{40,}
# Databases and data platforms
pscale_tkn_[A-Za-z0-9=_.-]{24,}
pscale_oauth_[A-Za-z0-9=_.-]{24,}
pscale_pw_[A-Za-z0-9=_.-]{24,}
sbp_[a-f0-9]{32,}
sbp_v0_[a-f0-9]{32,}
sb_secret_[A-Za-z0-9_-]{20,}
napi_[A-Za-z0-9]{40,}
neon_[A-Za-z0-9]{40,}
mdb_sa_sk_[A-Za-z0-9_-]{30,}
dapi[a-f0-9]{32}\b
dapi[a-f0-9-]{34}\b
dose[a-f0-9]{32}\b
dkea[a-f0-9]{32}\b
CCDB1_[A-Za-z0-9_-]{20,}
AVNS_[A-Za-z0-9_-]{16,}
ccdb_[A-Za-z0-9_-]{30,}
fnA[A-Za-z0-9_-]{37}\b
xau_[A-Za-z0-9]{24,}
# Secret managers, identity, infrastructure as code, private networks
dp.pt.[A-Za-z0-9]{30,}
dp.st.[A-Za-z0-9_.-]{30,}
dp.ct.[A-Za-z0-9]{30,}
dp.sa.[A-Za-z0-9]{30,}
dp.scim.[A-Za-z0-9]{30,}
dp.audit.[A-Za-z0-9]{30,}
hvs.[A-Za-z0-9_-]{20,}
hvb.[A-Za-z0-9_-]{40,}
hvr.[A-Za-z0-9_-]{20,}
s.[A-Za-z0-9]{24}\b
atlasv1.[A-Za-z0-9_=-]{40,}
pul-[a-f0-9]{40}\b
ico-[A-Za-z0-9]{32}\b
pat.[A-Za-z0-9_.-]{50,}
sat.[A-Za-z0-9_.-]{50,}
ops_eyJ[A-Za-z0-9+/=_-]{60,}
A3-[A-Z0-9-]{30,}
AGE-SECRET-KEY-1[A-Z0-9]{40,}
AGE-PLUGIN-[A-Z0-9-]{40,}
tskey-[A-Za-z0-9_-]{24,}
dnkey-[A-Za-z0-9=_-]{40,}
sha256~[A-Za-z0-9_-]{40,}
p8e-[a-z0-9]{32}\b
ext_[A-Za-z0-9_.=-]{60,}
scauth_[A-Za-z0-9_.=-]{60,}
authress_[A-Za-z0-9_.=-]{60,}
eap_v1_[A-Za-z0-9_-]{30,}
SWMTKN-1-[A-Za-z0-9-]{60,}
K10[A-Za-z0-9:]{64,}
st.[A-Fa-f0-9.-]{80,}
# AI: Anthropic, OpenAI and everyone who borrowed `sk-`
sk-[A-Za-z0-9_-]{18,}
sk-lf-[a-f0-9-]{32,}
gsk_[A-Za-z0-9]{30,}
xai-[A-Za-z0-9_-]{40,}
pplx-[A-Za-z0-9]{30,}
hf_[A-Za-z0-9]{30,}
api_org_[A-Za-z0-9]{30,}
r8_[A-Za-z0-9]{30,}
csk-[a-z0-9]{40,}
nvapi-[A-Za-z0-9_-]{40,}
tgp_v1_[A-Za-z0-9_-]{30,}
fw_[A-Za-z0-9]{22,}
fc-[a-f0-9]{32}\b
jina_[A-Za-z0-9_-]{40,}
tvly-[A-Za-z0-9-]{20,}
pa-[A-Za-z0-9_-]{40,}
pcsk_[A-Za-z0-9_]{40,}
lsv2_pt_[A-Za-z0-9_]{32,}
lsv2_sk_[A-Za-z0-9_]{32,}
wandb_v1_[A-Za-z0-9_-]{40,}
esecret_[a-z0-9]{20,}
rpa_[A-Z0-9]{30,}
e2b_[a-f0-9]{40}\b
bb_live_[A-Za-z0-9_-]{20,}
dtn_[a-f0-9]{50,}
crsr_[A-Za-z0-9]{40,}
key_[a-f0-9]{60,}
opk_[A-Za-z0-9]{30,}
sk_[a-f0-9]{40,}
sk_[A-Za-z0-9_-]{43,}
wk-1.[a-f0-9]{40,}
# Payment
sk_live_[A-Za-z0-9_]{12,}
sk_test_[A-Za-z0-9_]{12,}
sk_prod_[A-Za-z0-9_]{12,}
rk_live_[A-Za-z0-9_]{12,}
rk_test_[A-Za-z0-9_]{12,}
rk_prod_[A-Za-z0-9_]{12,}
ak_live_[A-Za-z0-9]{20,}
ak_test_[A-Za-z0-9]{20,}
ek_live_[A-Za-z0-9]{20,}
ek_test_[A-Za-z0-9]{20,}
whsec_[A-Za-z0-9+/=]{20,}
live_[A-Za-z0-9_=-]{30,}
live_pub_[a-f0-9]{28,}
test_[a-f0-9]{30,}
test_pub_[a-f0-9]{28,}
sandbox_[A-Za-z0-9_=-]{36,}
FLWSECK_TEST-[a-zA-Z0-9-]{10,}
FLWSECK-[a-zA-Z0-9-]{20,}
FLWPUBK_TEST-[a-zA-Z0-9-]{20,}
FLWPUBK-[a-zA-Z0-9-]{20,}
sq0atp-[A-Za-z0-9_-]{20,}
sq0csp-[A-Za-z0-9_-]{30,}
EAAA[A-Za-z0-9_+=-]{56,}
shpat_[A-Fa-f0-9]{28,}
shpca_[A-Fa-f0-9]{28,}
shppa_[A-Fa-f0-9]{28,}
shpss_[A-Fa-f0-9]{28,}
shpua_[A-Fa-f0-9]{28,}
shptka_[A-Fa-f0-9]{28,}
A21AA[A-Za-z0-9_-]{60,}
rzp_live_[A-Za-z0-9]{14,}
rzp_test_[A-Za-z0-9]{14,}
access-sandbox-[a-f0-9-]{32,}
access-development-[a-f0-9-]{32,}
access-production-[a-f0-9-]{32,}
shippo_live_[a-f0-9]{32,}
shippo_test_[a-f0-9]{32,}
duffel_live_[A-Za-z0-9_=-]{36,}
duffel_test_[A-Za-z0-9_=-]{36,}
EZAK[A-Za-z0-9]{50,}
EZTK[A-Za-z0-9]{50,}
pdl_live_[A-Za-z0-9_]{30,}
pdl_sdbx_[A-Za-z0-9_]{30,}
polar_oat_[A-Za-z0-9]{30,}
polar_pat_[A-Za-z0-9]{30,}
plaid-[a-f0-9-]{32,}
flb_live_[A-Za-z0-9]{18,}
flb_test_[A-Za-z0-9]{18,}
# Chat, mail, telephony
xoxb-[A-Za-z0-9-]{15,}
xoxp-[A-Za-z0-9-]{15,}
xoxa-[A-Za-z0-9-]{15,}
xoxr-[A-Za-z0-9-]{15,}
xoxs-[A-Za-z0-9-]{15,}
xoxo-[A-Za-z0-9-]{15,}
xoxc-[A-Za-z0-9-]{15,}
xoxd-[A-Za-z0-9%+/=-]{15,}
xoxe-[A-Za-z0-9-]{15,}
xoxe.xoxp-[A-Za-z0-9-]{20,}
xoxe.xoxb-[A-Za-z0-9-]{20,}
xapp-[A-Za-z0-9-]{20,}
xwfp-[A-Za-z0-9-]{20,}
SK[a-f0-9]{32}\b
SG.[A-Za-z0-9_=.-]{40,}
key-[a-f0-9]{32}\b
pubkey-[a-f0-9]{32}\b
xkeysib-[A-Za-z0-9-]{60,}
xsmtpsib-[A-Za-z0-9-]{60,}
md-[A-Za-z0-9_-]{22}\b
dG9rO[A-Za-z0-9+/=]{40,}
KEY0[A-Z0-9]{30,}
re_live_[A-Za-z0-9_]{20,}
sp_live_[A-Za-z0-9_]{20,}
# Package registries
npm_[A-Za-z0-9]{20,}
pypi-AgE[A-Za-z0-9_-]{30,}
pypi-[A-Za-z0-9_-]{60,}
rubygems_[a-f0-9]{40,}
cio[A-Za-z0-9]{32}\b
oy2[a-z0-9]{43}\b
CLOJARS_[a-z0-9]{40,}
dckr_pat_[A-Za-z0-9_-]{18,}
dckr_oat_[A-Za-z0-9_-]{18,}
packagist_[A-Za-z0-9_]{40,}
AKCp[A-Za-z0-9]{50,}
cmVmd[A-Za-z0-9]{50,}
jsrp_[A-Za-z0-9]{30,}
ovsxp_[A-Za-z0-9-]{30,}
ovsxat_[A-Za-z0-9-]{30,}
chpt_[a-f0-9]{15,}
# CI and quality
CCIPAT_[A-Za-z0-9_]{30,}
CCIPRJ_[A-Za-z0-9_]{30,}
bkua_[a-z0-9]{36,}
bkct_[A-Za-z0-9_.-]{30,}
bkpt_[A-Za-z0-9_.-]{30,}
sqp_[a-f0-9]{36,}
squ_[a-f0-9]{36,}
sqa_[a-f0-9]{36,}
API-[A-Z0-9]{25,}
pnu_[A-Za-z0-9]{30,}
pnb_[A-Za-z0-9]{30,}
hawk.[A-Za-z0-9_.-]{36,}
nx-[A-Za-z0-9]{40,}
snyk_uat.[A-Za-z0-9_.-]{40,}
mka_[A-Za-z0-9]{40,}
depot_project_[a-f0-9]{40,}
depot_org_[a-f0-9]{40,}
ddo_[A-Za-z0-9]{30,}
# Monitoring, analytics, feature flags
glsa_[A-Za-z0-9_]{32,}
glc_[A-Za-z0-9+/=]{32,}
eyJrIjoi[A-Za-z0-9+/=_-]{40,}
NRAK-[A-Za-z0-9]{24,}
NRJS-[a-f0-9]{16,}
NRII-[A-Za-z0-9-]{28,}
NRIQ-[A-Za-z0-9-]{28,}
NRRA-[a-f0-9]{36,}
sntrys_[A-Za-z0-9+/=_-]{40,}
sntryu_[a-f0-9]{40,}
sntrya_[a-f0-9]{40,}
dt0c01.[A-Za-z0-9.]{60,}
dt0s01.[A-Za-z0-9.]{60,}
dt0s02.[A-Za-z0-9.]{60,}
dt0s08.[A-Za-z0-9.]{60,}
dt0s16.[A-Za-z0-9.]{60,}
hcaik_[A-Za-z0-9]{40,}
hcamk_[A-Za-z0-9]{40,}
hcxik_[A-Za-z0-9]{40,}
hcxlk_[A-Za-z0-9]{40,}
sdk-[a-f0-9-]{36}\b
api-[a-f0-9-]{36}\b
mob-[a-f0-9-]{36}\b
launchdarkly-[a-z0-9-]{36,}
phx_[A-Za-z0-9_]{30,}
phs_[A-Za-z0-9_]{30,}
secret-[A-Za-z0-9]{30,}
xaat-[a-f0-9-]{36}\b
xapt-[a-f0-9-]{36}\b
essu_[A-Za-z0-9+/=_-]{40,}
ddp_[A-Za-z0-9]{30,}
ddpat_[A-Za-z0-9_]{30,}
ddapp_[A-Za-z0-9_]{30,}
pub-c-[a-f0-9-]{36}\b
sec-c-[A-Za-z0-9-]{36,}
sub-c-[a-f0-9-]{36}\b
# Work tools and content
lin_api_[A-Za-z0-9]{30,}
lin_oauth_[A-Za-z0-9]{30,}
ntn_[A-Za-z0-9]{40,}
secret_[A-Za-z0-9]{40,}
secret_[A-Za-z0-9_.]{60,}
apify_api_[A-Za-z0-9]{30,}
aio_[A-Za-z0-9]{28}\b
s-s4t2ud-[a-f0-9]{60,}
u-s4t2ud-[a-f0-9]{60,}
figd_[A-Za-z0-9_-]{30,}
figdr_[A-Za-z0-9_-]{30,}
figo_[A-Za-z0-9_-]{30,}
PMAK-[A-Za-z0-9-]{50,}
PMAT-[A-Za-z0-9]{20,}
rdme_[a-z0-9]{60,}
tfp_[A-Za-z0-9_=.-]{40,}
CFPAT-[A-Za-z0-9_-]{36,}
sl.[A-Za-z0-9_=-]{100,}
pat-na1-[a-f0-9-]{32,}
pat-na2-[a-f0-9-]{32,}
pat-eu1-[a-f0-9-]{32,}
pat-ap1-[a-f0-9-]{32,}
fio-u-[A-Za-z0-9_=-]{40,}
sm_aat_[A-Za-z0-9]{14,}
sm_pat_[A-Za-z0-9]{14,}
sm_sat_[A-Za-z0-9]{14,}
waka_[a-f0-9-]{36}\b
cal_live_[A-Za-z0-9]{28,}
VF.DM.[A-Za-z0-9.]{36,}
ion_[A-Za-z0-9]{40,}
vtwn_[A-Za-z0-9]{20,}
rootly_[a-f0-9]{40,}
retool_[A-Za-z0-9_]{20,}
zpka_[A-Za-z0-9_]{30,}
unkey_[A-Za-z0-9]{16,}
signkey-[A-Za-z0-9-]{40,}
tr_dev_[A-Za-z0-9]{16,}
tr_prod_[A-Za-z0-9]{16,}
BBFF-[A-Za-z0-9]{28,}
NF-[A-Za-z0-9]{32}\b
persona_production_[a-z0-9-]{30,}
persona_sandbox_[a-z0-9-]{30,}
sk.eyJ[A-Za-z0-9_.-]{30,}
# Social networks
EAACEdEose0cBA[A-Za-z0-9]{20,}
EAA[A-Za-z0-9]{90,}
IGQV[A-Za-z0-9_-]{80,}
AAAAAAAAAAAAAAAAAAAAA[A-Za-z0-9%]{40,}
sha1~[A-Za-z0-9_-]{36,}
# JSON Web Tokens by the first claims of their header, also when base64 was applied twice
eyJhbGciOi[A-Za-z0-9_.=-]{16,}
eyJ0eXAiOi[A-Za-z0-9_.=-]{16,}
eyJraWQiOi[A-Za-z0-9_.=-]{16,}
eyJ4NXQiOi[A-Za-z0-9_.=-]{16,}
eyJ4NXQjUzI1NiI6[A-Za-z0-9_.=-]{16,}
eyJ4NWMiOl[A-Za-z0-9_.=-]{16,}
eyJqa3UiOi[A-Za-z0-9_.=-]{16,}
eyJqd2siOn[A-Za-z0-9_.=-]{16,}
eyJjdHkiOi[A-Za-z0-9_.=-]{16,}
eyJlbmMiOi[A-Za-z0-9_.=-]{16,}
ZXlKaGJHY2lPaU[A-Za-z0-9+/=_-]{40,}
ZXlK[A-Za-z0-9+/=_-]{80,}
# Base64 of a private key in PEM, as Kubernetes keeps it; of Docker's credentials, and AWS's for
# Docker; of a service account's of Google, each compact and indented
LS0tLS1CRUdJTiBQUklWQVRFIEtFWS[A-Za-z0-9+/=]{20,}
LS0tLS1CRUdJTiBSU0EgUFJJVkFUR[A-Za-z0-9+/=]{20,}
LS0tLS1CRUdJTiBFQyBQUklWQVRFI[A-Za-z0-9+/=]{20,}
LS0tLS1CRUdJTiBPUEVOU1NIIFBSS[A-Za-z0-9+/=]{20,}
LS0tLS1CRUdJTiBFTkNSWVBURUQgUFJJV[A-Za-z0-9+/=]{20,}
LS0tLS1CRUdJTiBEU0EgUFJJVkFUR[A-Za-z0-9+/=]{20,}
LS0tLS1CRUdJTiBQR1AgUFJJVkFUR[A-Za-z0-9+/=]{20,}
eyJhdXRocyI6[A-Za-z0-9+/=]{20,}
ewogICJhdXRocyI6[A-Za-z0-9+/=]{20,}
ewoJImF1dGhzIjog[A-Za-z0-9+/=]{20,}
eyJwYXlsb2FkIjoi[A-Za-z0-9+/=]{60,}
eyJ0eXBlIjoic2VydmljZV9hY2NvdW50[A-Za-z0-9+/=]{20,}
eyJ0eXBlIjogInNlcnZpY2VfYWNjb3Vud[A-Za-z0-9+/=]{20,}
ewogICJ0eXBlIjogInNlcnZpY2VfYWNjb3Vud[A-Za-z0-9+/=]{20,}
# A private key on one line, without a header: RSA, elliptic curves and Edwards curves in PKCS#1 and
# PKCS#8, and OpenSSH's own format
MIIEpAIBAAKCAQEA[A-Za-z0-9+/=]{40,}
MIIEowIBAAKCAQEA[A-Za-z0-9+/=]{40,}
MIIEogIBAAKCAQEA[A-Za-z0-9+/=]{40,}
MIIJKAIBAAKCAgEA[A-Za-z0-9+/=]{40,}
MIIJKQIBAAKCAgEA[A-Za-z0-9+/=]{40,}
MIIJKgIBAAKCAgEA[A-Za-z0-9+/=]{40,}
MIIEvAIBADANBgkqhkiG9w0BAQEFAASC[A-Za-z0-9+/=]{20,}
MIIEvQIBADANBgkqhkiG9w0BAQEFAASC[A-Za-z0-9+/=]{20,}
MIIEvgIBADANBgkqhkiG9w0BAQEFAASC[A-Za-z0-9+/=]{20,}
MIIJQgIBADANBgkqhkiG9w0BAQEFAASC[A-Za-z0-9+/=]{20,}
MIIJQwIBADANBgkqhkiG9w0BAQEFAASC[A-Za-z0-9+/=]{20,}
MIIJRAIBADANBgkqhkiG9w0BAQEFAASC[A-Za-z0-9+/=]{20,}
MHcCAQEEI[A-Za-z0-9+/=]{40,}
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0w[A-Za-z0-9+/=]{20,}
MC4CAQAwBQYDK2VwBCIEI[A-Za-z0-9+/=]{20,}
b3BlbnNzaC1rZXktdjE[A-Za-z0-9+/=]{40,}
"""

# Addresses whose path is the credential: anybody who knows the URL may post. What follows the
# literal is removed.
WEBHOOKS = (
    b"hooks.slack.com/services/",
    b"hooks.slack.com/workflows/",
    b"hooks.slack.com/triggers/",
    b"discord.com/api/webhooks/",
    b"discordapp.com/api/webhooks/",
    b"canary.discord.com/api/webhooks/",
    b"ptb.discord.com/api/webhooks/",
    b"outlook.office.com/webhook/",
    b"outlook.office365.com/webhook/",
    b".webhook.office.com/webhookb2/",
    b"hooks.zapier.com/hooks/catch/",
    b"api.telegram.org/bot",
    b"api.telegram.org/file/bot",
    b"open.feishu.cn/open-apis/bot/v2/hook/",
    b"open.larksuite.com/open-apis/bot/v2/hook/",
    b"hook.eu1.make.com/",
    b"hook.us1.make.com/",
)


def built_in_shapes() -> tuple[TokenShape, ...]:
    """Return the table above, parsed."""
    lines = (line.strip() for line in BUILT_IN.splitlines())
    return tuple(parse_shape(line) for line in lines if line and not line.startswith("#"))


def _list_words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# --- names ----------------------------------------------------------------------------------------

# A name that ends in one of these says that its value is a secret.
SECRET_ENDINGS = (
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "licensekey",
    "accountkey",
    "sharedkey",
    "masterkey",
    "signingkey",
    "encryptionkey",
    "clientsecret",
    "userpass",
    "dbpass",
    "requirepass",
    "masterauth",
    "storepass",
    "keypass",
    "passwort",
    "psk",
)

# Names of a secret that do not end like one.
SECRET_NAMES = frozenset((b"rediscli_auth", b"sshpass", b"bindpw", b"rootpw", b"olcrootpw"))

# Ends of names whose value is none: of sudo, of Java's packages, of Kubernetes.
NO_SECRETS = (b"nopasswd", b"jsonwebtoken", b"existingsecret")

# A name that ends in one of these may hold a secret: its value has to look random.
SUSPECT_ENDINGS = (
    "tokens",
    "secrets",
    "passwords",
    "passwds",
    "apikeys",
    "auth",
    "credential",
    "credentials",
    "creds",
    "cred",
    "signature",
    "sig",
    "session",
    "sessionid",
    "sessid",
    "sess",
    "jwt",
    "bearer",
    "cookie",
    "dsn",
    "pat",
    "pass",
)

# `<word> key`: which words make it a secret, and which an ordinary key. Any other word makes it
# suspect.
KEY_SECRET_WORDS = _list_words(
    """
    api access secret private encryption encrypt decryption decrypt signing sign master auth
    authentication account shared license licence hmac webhook jwt aes rsa ssl tls wpa
    psk subscription admin root deploy stream consumer personal functions function host sas
    symmetric crypto cipher validation machine rails unseal recovery
    """
)
KEY_ORDINARY_WORDS = _list_words(
    """
    public primary foreign sort partition cache row index map dict lookup object group column
    unique composite natural surrogate arrow hot shortcut translation i18n l10n message route
    routing hash range registry config property attribute env environment variable field form
    json yaml data item list record entry table db database query param parameter header state
    store tree node path file name event metric label tag trace span log search sorting order
    filter s3 blob bucket redis dedup dedupe dedupli idempotency partial prefix suffix left
    right up down enter escape tab space delete home end page any press the a this that each
    every next previous last first restore websocket host_ rate limit user_id mac_ product feature
    flag setting settings option dispatch react component element menu from input
    """
)

# `<word>_token` that is no credential: pages, counters, and what language models and parsers call
# tokens.
TOKEN_ORDINARY_WORDS = _list_words(
    """
    next page pagination paging continuation sync cursor max min num total prompt completion
    input output count cancellation cancel pad eos bos unk mask sep cls special stop start end
    begin change cached reasoning first last previous prev per used remaining thinking text
    image audio budget estimated peek current_
    """
)

# Words after the name that change nothing: `token_value`, `password2`, `SECRET_PROD`.
NEUTRAL_ENDINGS = _list_words(
    """
    value string val b b64 base64 hex raw plain plaintext prod production dev staging live old new
    current previous main backup base data confirm confirmation again
    """
)

# The last word of a name in a record of credentials whose value is public: it is printed all day.
# What it identifies may well be generated.
IDENTIFIERS = _list_words(
    """
    id ids identifier arn arns bucket buckets fingerprint thumbprint kid sha1
    clientid projectid tenantid userid appid keyid accountid teamid subscriptionid
    """
)
# The same, unless the value looks generated after all.
PUBLIC_NAMES = _list_words(
    """
    type kind version format algorithm alg kty crv use engine driver protocol scheme sslmode
    scope scopes
    name names username hostname dbname database schema db dbinstance catalog warehouse role roles
    user users login account accounts email emails mail issuer iss audience aud subject sub realm
    host hosts server servers node nodes domain domains endpoint endpoints url urls uri uris
    origin origins address port path file folder location region zone cluster namespace context
    project tenant subscription organization organisation org team group groups company
    environment stage profile provider service description comment label labels title status
    at on date time expires expiry expiration created updated
    """
)

# --- values ---------------------------------------------------------------------------------------

# What stands after `password=` without being a password.
ORDINARY_VALUES = _list_words(
    """
    null none nil true false undefined yes no on off nan void unset empty required optional
    string str text bytes byte int integer float number bool boolean object any unknown never
    array list dict map default enabled disabled present missing absent not set invalid valid
    expired incorrect wrong failed ok error denied granted revoked changed updated created
    deleted rotated generated masked hidden redacted removed read write type name value val data
    password passwd secret token key api_key apikey pass pwd username user auth basic bearer
    digest prompt stdin env file var const let new self this typeof await async return function
    lambda static public private protected readonly final export import from is has your my the
    an and or for with
    hashed n/a yes/no
    amd64 arm64 armhf aarch64 i386 x86_64 ppc64el riscv64 s390x
    """
)
# What a password is called elsewhere, in files of translations. ASCII ones are whole words.
PASSWORD_TRANSLATIONS = _list_words(
    """
    passwort kennwort passe senha wachtwoord adgangskode passord parola parole heslo lozinka
    salasana contraseña contrasenya lösenord hasło şifre jelszó
    парол 密码 密碼
    パスワード 비밀번호
    """
)
# What is said about a password on a line of its own, and is none.
NO_PASSWORDS = _list_words(
    """
    accepted answer args ask auto automatic bcrypt blank clear cleared content data encrypted
    external forgotten generate good hash hashed hidden ident inherit input interactive keychain
    later line login mandatory match matched matches mismatch none okay optional peer plain
    plaintext prompted protected random rejected response result scram short strong trust
    unchanged unencrypted unlocked unused used vault weak
    """
)
