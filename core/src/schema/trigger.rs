//! Triggers: columns that the database fills itself.

use super::Database;
use crate::sql::Engine;

/// `used_quota.domain` and `maddr.email_raw`, each in the language of its server.
pub(super) fn create(database: Database, engine: Engine) -> &'static [&'static str] {
    match (database, engine) {
        (Database::Vmail, Engine::MySql) => {
            &["CREATE TRIGGER used_quota_before_insert BEFORE INSERT ON used_quota FOR EACH ROW
  SET NEW.domain = SUBSTRING_INDEX(NEW.username, '@', -1)"]
        }
        (Database::Vmail, Engine::Postgres) => &[
            "CREATE FUNCTION set_used_quota_domain() RETURNS trigger AS $$
BEGIN
  NEW.domain := split_part(lower(NEW.username), '@', 2);
  RETURN NEW;
END $$ LANGUAGE plpgsql",
            "CREATE TRIGGER used_quota_before_insert BEFORE INSERT ON used_quota
  FOR EACH ROW EXECUTE FUNCTION set_used_quota_domain()",
        ],
        // rtrim() cuts everything but `@` from the right end: what stays ends with the last `@`.
        (Database::Vmail, Engine::Sqlite) => {
            &["CREATE TRIGGER used_quota_after_insert AFTER INSERT ON used_quota FOR EACH ROW
BEGIN
  UPDATE used_quota
     SET domain = substr(NEW.username, length(rtrim(NEW.username, replace(NEW.username, '@', ''))) + 1)
   WHERE username = NEW.username;
END"]
        }
        (Database::Amavisd, Engine::MySql) => {
            &["CREATE TRIGGER maddr_email_raw BEFORE INSERT ON maddr FOR EACH ROW
  SET NEW.email_raw = IF(LOCATE('+', NEW.email) > 0,
      CONCAT(SUBSTRING_INDEX(NEW.email, '+', 1), '@', SUBSTRING_INDEX(NEW.email, '@', -1)), NEW.email)"]
        }
        (Database::Amavisd, Engine::Postgres) => &[
            "CREATE FUNCTION strip_addr_extension() RETURNS trigger AS $$
DECLARE
  address text := convert_from(NEW.email, 'UTF8');
BEGIN
  IF position('+' IN address) > 0 THEN
    NEW.email_raw := split_part(address, '+', 1) || '@' || split_part(address, '@', 2);
  ELSE
    NEW.email_raw := address;
  END IF;
  RETURN NEW;
END $$ LANGUAGE plpgsql",
            "CREATE TRIGGER maddr_email_raw BEFORE INSERT ON maddr
  FOR EACH ROW EXECUTE FUNCTION strip_addr_extension()",
        ],
        (Database::Amavisd, Engine::Sqlite) => {
            &["CREATE TRIGGER maddr_email_raw AFTER INSERT ON maddr FOR EACH ROW
BEGIN
  UPDATE maddr SET email_raw = (
    SELECT CASE WHEN instr(a, '+') > 0
           THEN substr(a, 1, instr(a, '+') - 1) || '@' || substr(a, length(rtrim(a, replace(a, '@', ''))) + 1)
           ELSE a END
      FROM (SELECT CAST(NEW.email AS TEXT) AS a))
   WHERE id = NEW.id;
END"]
        }
        _ => &[],
    }
}
