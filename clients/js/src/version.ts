/** The version of this package; a test holds it to package.json. */
export const PACKAGE_VERSION = "0.1.0";
