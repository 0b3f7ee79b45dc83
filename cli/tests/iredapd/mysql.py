############################################################
# DO NOT TOUCH BELOW LINE.
#
from libs.default_settings import *

############################################################
# General settings.
#
# Listen address and port.
listen_address = '127.0.0.1'
listen_port = 7777

# SRS.
srs_forward_port = 7778
srs_reverse_port = 7779
srs_domain = 'mail.example.com'
srs_secrets = ['Kanarienvogel-1', "Kanarienvogel-2"]

# Run as a low privileged user.
run_as_user = 'iredapd'

# Path to pid file.
pid_file = '/var/run/iredapd.pid'

# Log level: info, debug.
log_level = 'info'

# Backend: ldap, mysql, pgsql.
backend = 'mysql'

# Enabled plugins.
plugins = ['reject_null_sender', 'wblist_rdns', 'reject_sender_login_mismatch', 'greylisting', 'throttle',
           'amavisd_wblist', 'sql_alias_access_policy', 'sql_ml_access_policy',
           'custom_spam_trap',  # ours
           ]

# For ldap backend only.
#ldap_uri = 'ldap://127.0.0.1:389'

# For MySQL and PostgreSQL backends.
vmail_db_server = '127.0.0.1'
vmail_db_port = '3306'
vmail_db_name = 'vmail'
vmail_db_user = 'vmail'
vmail_db_password = 'Kanarien:vogel@/3?#%'

amavisd_db_server = '127.0.0.1'
amavisd_db_port = '3306'
amavisd_db_name = 'amavisd'
amavisd_db_user = 'amavisd'
amavisd_db_password = 'Kanarienvogel-4'

iredapd_db_server = 'db.example.com'
iredapd_db_port = '3307'
iredapd_db_name = 'iredapd'
iredapd_db_user = 'iredapd'
iredapd_db_password = 'Kanarienvogel' \
                      '-5'
iredapd_db_use_ssl = True

# mlmmjadmin.
mlmmjadmin_api_endpoint = 'http://127.0.0.1:7790/api'
mlmmjadmin_api_auth_token = "Kanarienvogel-6"

SQL_DB_DRIVER = 'pymysql'

############################################################
# What this server has changed.
#
MYNETWORKS = ['192.0.2.0/28', '10.1.*.*']
ALLOWED_LOGIN_MISMATCH_SENDERS = ['Scanner@Example.com', '@example.net']
GREYLISTING_BLOCK_EXPIRE = 5
GREYLISTING_MESSAGE = ('Please try again '
                       'in some "minutes"')
DNS_QUERY_TIMEOUT = 1.5
THROTTLE_BYPASS_MYNETWORKS = True
PLUGIN_PRIORITIES['amavisd_wblist'] = 99
PLUGIN_PRIORITIES['custom_spam_trap'] = 100
RECIPIENT_DELIMITERS += ['-']
NOTIFICATION_RECIPIENTS = ['postmaster@' + srs_domain]
SPAM_TRAP_ACCOUNTS = ['trap@example.com']
CHANGE_PASSWORD_DAYS = 'soon'
SENDERSCORE_REJECT_SCORE = 300
log_file = '/var/log/iredapd.log'
